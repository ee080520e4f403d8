"""Where calls wait for room within a process: one room for each choice of targets, and in it only the head asks."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from workers.ai.configuration import Target
from workers.ai.limits.permit import Pass, Unused, Wait
from workers.ai.limits.protocol import Ask, Refused
from workers.ai.limits.scopes import Scope

Choice = tuple[tuple[Scope, ...], ...]
Attempt = Callable[["Call", float], Awaitable[Pass | Wait | Refused]]
"""Asks once: for whom, and the seconds that it may still wait here; with none left it gets a pass or a wait."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that wants to go out."""

    ask: Ask
    targets: Sequence[Target]
    """The candidates, in the order of the asked scopes."""


@dataclass(eq=False, slots=True)
class Waiter:
    """One call that waits."""

    call: Call
    ends_at: float
    """In the loop's time: then it leaves with what it gets."""
    answer: asyncio.Future[Pass | Wait]


@dataclass(eq=False, slots=True)
class Room:
    """Calls that wait for the same targets: interactive ones before batch ones, first come first served."""

    scopes: frozenset[str]
    interactive: list[Waiter] = field(default_factory=list)
    batch: list[Waiter] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Something may have made room, or the head is another one."""

    def add(self, waiter: Waiter) -> None:
        """Let a call wait."""
        (self.batch if waiter.call.ask.batch else self.interactive).append(waiter)
        self.changed.set()

    def remove(self, waiter: Waiter) -> None:
        """It waits no longer; again does nothing."""
        line = self.batch if waiter.call.ask.batch else self.interactive
        if waiter in line:
            line.remove(waiter)
            self.changed.set()

    def next(self, now: float) -> Waiter | None:
        """Who is to ask: who has waited long enough, or else the head; None when nobody waits."""
        waiting = [*self.interactive, *self.batch]
        return next((waiter for waiter in waiting if waiter.ends_at <= now), waiting[0] if waiting else None)

    def ends_at(self) -> float | None:
        """When the next of them has waited long enough; None when nobody waits."""
        return min((waiter.ends_at for waiter in (*self.interactive, *self.batch)), default=None)


class Rooms:
    """The rooms of a process.

    Args:
        group: Runs each room's task.
        attempt: Asks the gates for a waiter.
    """

    def __init__(self, group: asyncio.TaskGroup, attempt: Attempt) -> None:
        self._group = group
        self._attempt = attempt
        self._rooms: dict[Choice, Room] = {}

    def are_waiting_for(self, choice: Choice) -> bool:
        """Whether calls wait for these targets already, so that another one has to queue."""
        return choice in self._rooms

    def freed(self, scopes: set[str] | None) -> None:
        """There may be room now.

        Args:
            scopes: Where; None means anywhere.
        """
        for room in self._rooms.values():
            if scopes is None or not scopes.isdisjoint(room.scopes):
                room.changed.set()

    def wait(self, call: Call, *, ends_at: float) -> asyncio.Future[Pass | Wait]:
        """Let a call wait.

        Args:
            call: The call.
            ends_at: Until when, in the loop's time.

        Returns:
            What it gets; when it is cancelled, the call waits no longer.
        """
        choice = call.ask.targets
        waiter = Waiter(call, ends_at, asyncio.get_running_loop().create_future())
        room = self._rooms.get(choice)
        if room is None:
            room = Room(frozenset(scope.name for scopes in choice for scope in scopes))
            self._rooms[choice] = room
            room.add(waiter)
            self._group.create_task(self._serve(choice, room))
        else:
            room.add(waiter)
        waiter.answer.add_done_callback(lambda _: room.remove(waiter))
        return waiter.answer

    async def _serve(self, choice: Choice, room: Room) -> None:
        clock = asyncio.get_running_loop().time
        while (waiter := room.next(clock())) is not None:
            room.changed.clear()
            try:
                answer = await self._attempt(waiter.call, max(waiter.ends_at - clock(), 0.0))
            except Exception as error:  # noqa: BLE001  # it is this call's fault, and the next one has its turn
                room.remove(waiter)
                if not waiter.answer.done():
                    waiter.answer.set_exception(error)
                continue
            if not isinstance(answer, Refused):
                room.remove(waiter)
                if not waiter.answer.done():
                    waiter.answer.set_result(answer)
                elif isinstance(answer, Pass):
                    await answer.leave(Unused())
                continue
            until = min(clock() + answer.seconds, room.ends_at() or 0.0)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await room.changed.wait()
        del self._rooms[choice]
