"""The log of every effect on the simulated phone: one JSON object a line, written before the effect is applied."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MARKER_VARIABLE = "ISH_MARKER"
"""A command line may begin with `ISH_MARKER=…`; the value is logged with its effects."""


class EffectLog:
    """Appends effects to a file, or only counts them when there is none.

    Each line is `{n, at, action, argv, running}` and `marker` where one was given: `n` counts from 1 and goes on
    across restarts, `at` is Unix time, `running` how many command lines ran at that moment, counting this one.
    """

    def __init__(self, path: Path | None) -> None:
        self.count = len(path.read_bytes().splitlines()) if path is not None and path.exists() else 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if path is not None else None

    def append(self, action: str, argv: Sequence[str], *, running: int, marker: str | None) -> None:
        """Record one effect; it is in the file when this returns."""
        self.count += 1
        entry: dict[str, Any] = {
            "n": self.count,
            "at": time.time(),
            "action": action,
            "argv": list(argv),
            "running": running,
        }
        if marker is not None:
            entry["marker"] = marker
        if self._descriptor is not None:
            os.write(self._descriptor, json.dumps(entry).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_effects(path: Path) -> list[dict[str, Any]]:
    """Every effect logged so far, oldest first; none when the file is not there yet."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
