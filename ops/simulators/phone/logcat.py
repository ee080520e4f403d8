"""The phone's log as `logcat` shows it: a ring of lines that apps and services wrote."""

import time
from collections import deque
from dataclasses import dataclass

from typing_extensions import override

_KEPT_LINES = 2000


@dataclass(frozen=True, slots=True)
class Line:
    """One entry."""

    number: int
    """Counts from 1."""
    at: float
    """Unix time."""
    level: str
    """`D`, `I`, `W` or `E`."""
    tag: str
    message: str

    @override
    def __str__(self) -> str:
        """As `logcat -v threadtime` prints it, which is the default."""
        stamp = time.strftime("%m-%d %H:%M:%S", time.localtime(self.at))
        return f"{stamp}.{int(self.at % 1 * 1000):03}  1000  1000 {self.level} {self.tag}: {self.message}"


class LogBuffer:
    """The last lines of the log."""

    def __init__(self) -> None:
        self._written = 0
        self._lines: deque[Line] = deque(maxlen=_KEPT_LINES)
        self.write("I", "boot", "the simulated phone has started")

    def write(self, level: str, tag: str, message: str) -> None:
        """Add a line."""
        self._written += 1
        self._lines.append(Line(self._written, time.time(), level, tag, message))

    def lines(self, *, after: int = 0) -> list[Line]:
        """Those with a higher number, oldest first."""
        return [line for line in self._lines if line.number > after]

    def clear(self) -> None:
        """Forget every line."""
        self._lines.clear()
