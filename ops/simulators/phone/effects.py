"""The log of every effect on the simulated phone: one JSON object a line, in the file before the command is answered.

Each effect is `{n, at, monotonic, serial, action, argv, running}`, what the action adds (a tap: `x`, `y`, `hit`; text:
`text`, `field`; …), and `marker` where one was given. `n` counts from 1 and goes on across restarts, `at` is Unix time,
`monotonic` is the machine's clock, comparable between phones, and `running` is how many command lines ran on the phone
at that moment, counting this one. An effect that takes time has a second line, `{ended: n, at, monotonic}`, when it is
over; `read_effects` puts that into its effect.
"""

import json
import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MARKER_VARIABLE = "ISH_MARKER"
"""A command line may begin with `ISH_MARKER=…`; the value is logged with its effects."""
_LATEST = 50


class EffectLog:
    """Appends effects to a file; without one it only counts them and keeps the latest."""

    def __init__(self, path: Path | None) -> None:
        self.count = len(read_effects(path)) if path is not None else 0
        self.latest: deque[dict[str, Any]] = deque(maxlen=_LATEST)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if path is not None else None

    def append(
        self, action: str, argv: Sequence[str], *, running: int, marker: str | None = None, **facts: object
    ) -> int:
        """Record one effect; it is in the file when this returns.

        Args:
            action: What is done, such as `tap`.
            argv: The program's words, or the service and the path of a file transfer.
            running: Command lines that run on the phone now.
            marker: The caller's, from MARKER_VARIABLE.
            facts: What the action adds, JSON values.

        Returns:
            Its number.
        """
        self.count += 1
        entry: dict[str, Any] = {"n": self.count, **_now(), "action": action, "argv": list(argv), "running": running}
        entry |= facts
        if marker is not None:
            entry["marker"] = marker
        self.latest.append(entry)
        self._write(entry)
        return self.count

    def end(self, number: int) -> None:
        """Record that an effect which took time is over."""
        self._write({"ended": number, **_now()})

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, entry: dict[str, Any]) -> None:
        if self._descriptor is not None:
            os.write(self._descriptor, json.dumps(entry).encode() + b"\n")


def _now() -> dict[str, float]:
    return {"at": time.time(), "monotonic": time.monotonic()}


def read_effects(path: Path) -> list[dict[str, Any]]:
    """Every effect logged so far, oldest first; none when the file is not there yet.

    Returns:
        The entries; those that took time and are over have `ended_at` and `ended_monotonic` besides.
    """
    if not path.exists():
        return []
    effects: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines():
        entry = json.loads(line)
        if "ended" in entry:
            effects[entry["ended"]] |= {"ended_at": entry["at"], "ended_monotonic": entry["monotonic"]}
        else:
            effects[entry["n"]] = entry
    return list(effects.values())
