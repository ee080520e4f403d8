"""Processes by pid and start time, so that a pid used again by something else is never taken for the first."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for a later one of the same pid."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """Who runs under this pid now; None when nobody does.

        Args:
            pid: Any process id.
        """
        started = _start_time(pid)
        return cls(pid, started) if started is not None else None

    @classmethod
    def own(cls) -> "Identity":
        """This process."""
        return cls(os.getpid(), _start_time(os.getpid()) or "")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return _start_time(self.pid) == self.started

    def wait(self, seconds: float) -> bool:
        """Wait for its end.

        Args:
            seconds: At the most.

        Returns:
            Whether it has ended.
        """
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.alive

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """Signal it, if it still runs.

        Args:
            number: The signal.
            group: Also everything in its process group.
        """
        if not self.alive:
            return
        try:
            (os.killpg if group else os.kill)(self.pid, number)
        except ProcessLookupError:
            return


def _start_time(pid: int) -> str | None:
    """Clock ticks from boot to the start of a process, as text; a zombie counts as gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in {"Z", "X"} else fields[19]
