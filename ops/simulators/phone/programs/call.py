"""What a program on the simulated phone is given when it runs, and what it can do with it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ops.simulators.phone.device import Device
from ops.simulators.phone.streams import Sink, Source

FAILED = 255
"""What Android's `app_process` programs exit with after an error."""


@dataclass(slots=True)
class Call:
    """One running program."""

    device: Device
    argv: Sequence[str]
    stdin: Source
    out: Sink
    err: Sink
    marker: str | None = None
    """Logged with its effects."""
    effects: list[int] = field(default_factory=list)
    """Numbers of those it logged."""
    takes_time: bool = False
    """Whether its effects have an end that is worth logging."""

    @property
    def arguments(self) -> list[str]:
        """Its words after the program's name."""
        return list(self.argv[1:])

    def say(self, line: str) -> int:
        """Print a line; returns the exit code of success."""
        self.out.write(line.encode() + b"\n")
        return 0

    def fail(self, line: str, exit_code: int = FAILED) -> int:
        """Print a line as an error; returns the exit code."""
        self.err.write(line.encode() + b"\n")
        return exit_code

    def effect(self, action: str, **facts: object) -> None:
        """Log an effect; to be called where it is applied, with no wait between the two."""
        device = self.device
        number = device.effects.append(
            action, self.argv, running=device.running, marker=self.marker, serial=device.serial, **facts
        )
        self.effects.append(number)

    async def last(self, seconds: float) -> None:
        """Take time; the end of its effects is logged when it is over, or when the program is ended."""
        self.takes_time = True
        await asyncio.sleep(seconds)


Program = Callable[[Call], Awaitable[int]]
"""Runs it to its end; returns its exit code, 0 to 255."""
