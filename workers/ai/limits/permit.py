"""What a call needs before it goes out, and says when it is over: a pass, or a wait instead of one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from contracts.errors import CommandError
from workers.ai.configuration import Target

WaitReason = Literal["in_flight", "requests_per_minute", "tokens_per_minute", "open", "cooldown", "recovering"]


@dataclass(frozen=True, slots=True)
class Served:
    """The provider gave a whole answer."""

    tokens: int | None
    """Used by the call, question and answer; None leaves the reservation as it is."""
    seconds: float
    """The call's duration."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The call ended in an error; its details say what it is about (`scope`) and what follows from it."""

    error: CommandError


@dataclass(frozen=True, slots=True)
class Unknown:
    """The call was given up from this side: it says nothing about the provider, which may still be at it."""


@dataclass(frozen=True, slots=True)
class Unused:
    """No call was made."""


Result = Served | Failed | Unknown | Unused


@dataclass(frozen=True, slots=True)
class Wait:
    """No target has room for the call now."""

    seconds: float
    """Come back then; returns are spread, so that each finds room and none comes in a crowd."""
    reason: WaitReason
    target: str
    """The candidate that is expected to have room first."""
    dead: bool = False
    """It is `open` until a person acts (its key is refused, its model is not there), tried again in some minutes."""


@dataclass(slots=True)
class Pass:
    """Room for one call of one target, counted in all workers until it is left."""

    target: Target
    probe: bool
    """Whether this is the one call that tries whether a failed provider, model or key works again."""
    _leave: Callable[[Result], None]
    _left: bool = field(default=False, init=False)

    async def leave(self, result: Result) -> None:
        """Give the room back and say how the call went; the first time counts, again does nothing.

        It neither fails nor waits: Redis hears of it in the background.

        Args:
            result: How it ended.
        """
        if not self._left:
            self._left = True
            self._leave(result)
