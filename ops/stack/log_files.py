"""The stack's log files: followed in the foreground as readable lines, and kept from growing without end."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_BYTES = 50 * 1024 * 1024
"""A file larger than this becomes `<name>.log.1`, and the one before that is gone."""

_LEFT_OUT = {"timestamp", "level", "event", "process", "logger"}


@dataclass(slots=True)
class Followed:
    """One log file and how far it has been shown."""

    name: str
    path: Path
    _offset: int = field(init=False)
    _rest: bytes = field(default=b"", init=False)

    def __post_init__(self) -> None:
        self._offset = self.path.stat().st_size if self.path.exists() else 0

    def new_lines(self) -> Iterator[str]:
        """Lines written since the last call."""
        try:
            size = self.path.stat().st_size
            if size == self._offset:
                return
            if size < self._offset:  # it was cut
                self._offset = 0
            with self.path.open("rb") as file:
                file.seek(self._offset)
                content = file.read(1024 * 1024)
        except FileNotFoundError:
            return
        self._offset += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            yield readable(line.decode(errors="replace"))


def readable(line: str) -> str:
    """One log line for a person: time, level when it matters, event, then the facts as name=value.

    Args:
        line: A JSON log line; anything else is returned as it is.
    """
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "event" not in entry:
        return line
    level = str(entry.get("level", "info")).upper()
    words = [str(entry.get("timestamp", ""))[11:19], "" if level == "INFO" else level, str(entry["event"])]
    words += [f"{name}={_value(value)}" for name, value in entry.items() if name not in _LEFT_OUT]
    return " ".join(word for word in words if word)


def limit(path: Path) -> None:
    """Start a log file anew once it is too large; its writer, which appends, notices nothing.

    Args:
        path: A log file.
    """
    if path.exists() and path.stat().st_size > LIMIT_BYTES:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        with path.open("r+b") as file:
            file.truncate()


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
