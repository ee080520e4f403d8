"""The provider's ledger: one JSON line before each answer and one after it, and the counts that follow from them."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import orjson

Result = Literal["ok", "fail", "info"]


class _InFlight:
    """Calls that are being answered now, and the most there were, by one of their properties."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()

    def begin(self, name: str) -> None:
        self.now[name] += 1
        self.peak[name] = max(self.peak[name], self.now[name])


class Ledger:
    """Append-only; every line is written whole before the next thing happens, so it survives a kill of this process.

    Args:
        path: The file; None keeps counts only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._sequence = 0
        self._by_key: Counter[str] = Counter()
        self._by_model: Counter[str] = Counter()
        self._by_path: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._open: dict[int, tuple[str, str, str]] = {}
        self._answered: set[str] = set()
        self._peak_in_flight = 0
        self._models, self._paths = _InFlight(), _InFlight()

    def invoke(
        self, *, idempotency_key: str, command_id: str, model: str, prompt_sha256: str, path: str, stream: bool
    ) -> int:
        """Record a call before it is answered.

        Returns:
            Its number, first is 1.
        """
        self._sequence += 1
        if idempotency_key:
            self._by_key[idempotency_key] += 1
        self._by_model[model] += 1
        self._by_path[path] += 1
        self._open[self._sequence] = (model, path, idempotency_key)
        self._peak_in_flight = max(self._peak_in_flight, len(self._open))
        self._models.begin(model)
        self._paths.begin(path)
        if self._file is not None:
            self._write(
                {
                    "event": "invoke",
                    "call": self._sequence,
                    "at": time.time(),
                    "command_id": command_id,
                    "idempotency_key": idempotency_key,
                    "nth_for_key": self._by_key[idempotency_key],
                    "model": model,
                    "path": path,
                    "stream": stream,
                    "prompt_sha256": prompt_sha256,
                }
            )
        return self._sequence

    def end(self, call: int, *, event: Result, step: str, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Record what became of a call.

        An `ok` line says whether its key was answered well before (`repeated`): a provider that honours idempotency keys
        bills only the first, others bill both.

        Args:
            call: Its number.
            event: `ok` answered well, `fail` answered with a fault as told, `info` unknown: the caller left.
            step: What was played (`ok`, `status 429`, `fault trickle`).
            tokens_in: As reported in the answer.
            tokens_out: As reported in the answer.
        """
        model, path, key = self._open.pop(call)
        self._models.now[model] -= 1
        self._paths.now[path] -= 1
        self._endings[event] += 1
        if self._file is not None:
            line = {"event": event, "call": call, "at": time.time(), "step": step}
            if event == "ok":
                line["repeated"] = key in self._answered
            self._write(line | {"tokens_in": tokens_in, "tokens_out": tokens_out})
        if event == "ok" and key:
            self._answered.add(key)

    def counts(self) -> dict[str, Any]:
        """What happened so far."""
        return {
            "calls": self._sequence,
            "commands": len(self._by_key),
            "most_calls_for_one_command": max(self._by_key.values(), default=0),
            "by_model": dict(self._by_model),
            "by_path": dict(self._by_path),
            "ok": self._endings["ok"],
            "fail": self._endings["fail"],
            "info": self._endings["info"],
            "in_flight": len(self._open),
            "peak_in_flight": self._peak_in_flight,
            "peak_in_flight_by_model": dict(self._models.peak),
            "peak_in_flight_by_path": dict(self._paths.peak),
        }

    def calls_of(self, command_id: str) -> int:
        """Calls made for a command, by any publisher."""
        return sum(count for key, count in self._by_key.items() if command_id_of(key) == command_id)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            os.write(self._file, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def command_id_of(idempotency_key: str) -> str:
    """The command's id within `publisher:id`."""
    return idempotency_key.rpartition(":")[2]
