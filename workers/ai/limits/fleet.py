"""Lets calls out: the first target that has room within every limit and breaker of the fleet, or else a wait.

The gates are in Redis, so that all workers share them. When Redis is not configured or does not answer, those of this
process hold alone, each worker within the configured limits; Redis is asked again in the background.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from secrets import token_hex
from time import monotonic

from contracts.errors import CommandError
from contracts.logs import get_logger
from contracts.metrics import AI_BREAKER, AI_CALLS, AI_DEFERRALS, AI_GATE_WAIT
from contracts.restarting import restarting
from contracts.service_errors import redis_in_words
from contracts.topology import RETRY_LEVELS
from workers.ai.configuration import Target
from workers.ai.limits.link import Link, Unreachable, listen
from workers.ai.limits.local import LocalGates
from workers.ai.limits.permit import Failed, Pass, Result, Served, Unused, Wait
from workers.ai.limits.protocol import MARGIN_SECONDS, Ask, Change, Granted, Leaving, Refused
from workers.ai.limits.scopes import Scope, report, scopes_of
from workers.ai.limits.shared import SharedGates
from workers.ai.limits.wait_list import Call, Rooms
from workers.retry_policy import LOCAL_WAIT_SECONDS
from workers.task_cancellation import end

_RENEW_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 1.0
_DRAIN_SECONDS = 1.0
_LATE_SECONDS = MARGIN_SECONDS / 2
"""A grant may be heard of so long after the question; the rest of the margin is for the call's way to its provider."""
_WATCHED_SECONDS = 600.0
_HOP_SECONDS = float(min(RETRY_LEVELS.values()))
_EARLY_HOP_SECONDS = 0.5
"""So much of a step may be missing: the last one is then a little too long."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A pass that is out."""

    target: str
    scopes: tuple[Scope, ...]
    command_id: str
    granted: Granted
    at: float


class Fleet:
    """The gates, as one process sees them.

    Args:
        group: Runs its tasks.
        link: To Redis; None when there is none.
        window_seconds: In which requests and tokens are counted.
    """

    def __init__(self, group: asyncio.TaskGroup, link: Link | None, *, window_seconds: float) -> None:
        self._local = LocalGates(window_seconds=window_seconds, clock=monotonic)
        self._shared = None if link is None else SharedGates(link, window_seconds=window_seconds)
        self._away = False
        self._rooms = Rooms(group, self._attempt)
        self._held: dict[str, _Held] = {}
        self._watched: dict[str, float] = {}
        """Scopes that were asked for, and when."""
        self._process = token_hex(6)
        self._numbers = count(1)

    async def enter(
        self, targets: Sequence[Target], *, tokens: int, command_id: str, batch: bool, wait_seconds: float = 2.0
    ) -> Pass | Wait:
        """Get a pass for the first target that has room, waiting for one a while.

        Args:
            targets: Candidates, best first; at least one.
            tokens: To reserve where tokens are limited: question and expected answer.
            command_id: Of the command, unique among all publishers'.
            batch: It stands back while interactive calls wait.
            wait_seconds: How long it may wait here; when no room can be expected in that time, it does not wait at all.
        """
        number = next(self._numbers)
        ask = Ask(
            targets=tuple(scopes_of(target) for target in targets),
            tokens=tokens,
            command_id=command_id,
            pass_id=f"{self._process}:{number}",
            room=self._process,
            batch=batch,
        )
        self._watch(ask)
        call, began_at = Call(ask, targets), monotonic()
        answer: Pass | Wait | Refused | None = None
        if not self._rooms.are_waiting_for(ask.targets):
            answer = await self._attempt(call, wait_seconds)
        if answer is None or isinstance(answer, Refused):
            answer = await self._wait(call, wait_seconds)
        AI_GATE_WAIT.observe(monotonic() - began_at)
        if isinstance(answer, Wait):
            AI_DEFERRALS.labels(answer.target, answer.reason).inc()
        return answer

    async def run(self) -> None:
        """Renew what is held, show how breakers stand, and look for a Redis that went away; until cancelled."""
        while True:
            for name in [name for name, at in self._watched.items() if at < monotonic() - _WATCHED_SECONDS]:
                del self._watched[name]
                with suppress(KeyError):
                    AI_BREAKER.remove(name)
            self._local.renew((pass_id, held.scopes) for pass_id, held in self._held.items())
            watched = tuple(self._watched)
            states = await self._renew(self._shared, watched) if self._shared is not None else None
            for name, state in zip(watched, states or self._local.states(watched), strict=True):
                AI_BREAKER.labels(name).set(state)
            await asyncio.sleep(_ASK_AGAIN_SECONDS if self._away else _RENEW_SECONDS)

    def freed(self, scopes: set[str] | None) -> None:
        """There may be room now.

        Args:
            scopes: Where; None means anywhere.
        """
        self._rooms.freed(scopes)

    async def _wait(self, call: Call, seconds: float) -> Pass | Wait:
        answer = self._rooms.wait(call, ends_at=asyncio.get_running_loop().time() + seconds)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and isinstance(passed := answer.result(), Pass):
                await passed.leave(Unused())  # it came in the moment of the cancellation
            raise

    async def _attempt(self, call: Call, wait_seconds: float) -> Pass | Wait | Refused:
        ask, park = call.ask, wait_seconds <= 0
        if self._shared is None or self._away:
            answer = self._local.enter(ask, wait_seconds=wait_seconds, park=park)
        else:
            answer = await self._enter_shared(self._shared, ask, wait_seconds=wait_seconds, park=park)
        target = call.targets[answer.place]
        if isinstance(answer, Granted):
            self._held[ask.pass_id] = _hold(ask, answer, target.name)
            return Pass(target, bool(answer.probes), partial(self._leave, ask.pass_id))
        if answer.parked:
            return Wait(_in_hops(answer.seconds), answer.reason, target.name, answer.dead)
        return answer

    async def _enter_shared(
        self, shared: SharedGates, ask: Ask, *, wait_seconds: float, park: bool
    ) -> Granted | Refused:
        asked_at = monotonic()
        try:
            answer = await shared.enter(ask, wait_seconds=wait_seconds, park=park, lost=partial(self._give_back, ask))
        except Unreachable as error:
            self._lose(error)
            return self._local.enter(ask, wait_seconds=wait_seconds, park=park)
        if isinstance(answer, Granted):
            self._local.adopt(ask, answer.place)
            if monotonic() - asked_at > _LATE_SECONDS:
                shared.count_from_now(ask, answer.place)
        return answer

    def _give_back(self, ask: Ask, granted: Granted) -> None:
        """Nobody waits for this pass any more."""
        self._release(ask.pass_id, _hold(ask, granted, ""), Unused())

    def _leave(self, pass_id: str, result: Result) -> None:
        held = self._held.pop(pass_id)
        self._release(pass_id, held, result)
        if not isinstance(result, Unused):
            AI_CALLS.labels(held.target, _outcome(result)).inc()
        if isinstance(result, Failed) and report(result, held.scopes).dead:
            get_logger().error("provider_unusable", target=held.target, error=result.error.message)

    def _release(self, pass_id: str, held: _Held, result: Result) -> None:
        leaving = Leaving(
            scopes=held.scopes,
            command_id=held.command_id,
            pass_id=pass_id,
            granted_at=held.at,
            granted_at_ms=held.granted.at_ms,
            report=report(result, held.scopes),
        )
        changes = self._local.leave(leaving)
        if self._shared is None or self._away:
            self._heard(held, changes)
        else:
            self._shared.leave(leaving, done=partial(self._heard, held))

    def _heard(self, held: _Held, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.state == "open":
                get_logger().warning(
                    "breaker_opened", scope=change.scope, target=held.target, kind=change.kind, seconds=change.seconds
                )
            else:
                get_logger().info("breaker_recovered", scope=change.scope, target=held.target)
        self._rooms.freed({scope.name for scope in held.scopes})

    def _watch(self, ask: Ask) -> None:
        now = monotonic()
        for scopes in ask.targets:
            for scope in scopes:
                self._watched[scope.name] = now

    async def _renew(self, shared: SharedGates, watched: Sequence[str]) -> list[int] | None:
        """Returns how the watched breakers stand; None when Redis does not answer."""
        passes: dict[str, list[str]] = {}
        for pass_id, held in self._held.items():
            for scope in held.scopes:
                passes.setdefault(scope.name, []).append(pass_id)
        try:
            states = await shared.renew(
                held=passes,
                probes=[(scope, pass_id) for pass_id, held in self._held.items() for scope in held.granted.probes],
                watched=watched,
                log=self._local.log(),
                retell=self._away,
            )
        except Unreachable as error:
            self._lose(error)
            return None
        self._find()
        return states

    def _lose(self, error: Unreachable) -> None:
        if not self._away:
            self._away = True
            get_logger().warning(
                "redis_unreachable", error=redis_in_words(error), doing="provider limits of this worker alone"
            )
            self._rooms.freed(None)

    def _find(self) -> None:
        if self._away:
            self._away = False
            get_logger().info("redis_reachable")
            self._rooms.freed(None)


@asynccontextmanager
async def open_fleet(redis_url: str, *, window_seconds: float = 60.0) -> AsyncIterator[Fleet]:
    """The gates of a process, open until the block ends.

    Args:
        redis_url: redis:// URL; with an empty one every process has bounds of its own.
        window_seconds: In which requests and tokens are counted; a minute but in tests.
    """
    link = Link(redis_url) if redis_url else None
    async with asyncio.TaskGroup() as group:
        fleet = Fleet(group, link, window_seconds=window_seconds)
        tasks = [group.create_task(restarting("limits", fleet.run))]
        if link is not None:
            tasks += [
                group.create_task(restarting("limits link", link.run)),
                group.create_task(restarting("limits listener", partial(listen, redis_url, fleet.freed))),
            ]
        try:
            yield fleet
        finally:
            if link is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN_SECONDS):
                        await link.drain()
            await end(tasks)
            if link is not None:
                await link.close()  # calls that still wait go on with the gates of this process


def _in_hops(seconds: float) -> float:
    """A wait that wait queues can keep: they come in steps, and only the last two seconds can be waited for exactly."""
    over = seconds % _HOP_SECONDS - LOCAL_WAIT_SECONDS
    return seconds - over if 0 < over < _HOP_SECONDS - LOCAL_WAIT_SECONDS - _EARLY_HOP_SECONDS else seconds


def _hold(ask: Ask, granted: Granted, target: str) -> _Held:
    return _Held(target, ask.targets[granted.place], ask.command_id, granted, monotonic())


def _outcome(result: Result) -> str:
    match result:
        case Served():
            return "ok"
        case Failed(error=CommandError(code=code)):
            return code.value
        case _:
            return "unknown"
