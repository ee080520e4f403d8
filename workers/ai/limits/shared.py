"""Gates that all workers share, in Redis: what the scripts beside this module are asked and what they answer."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, cast

from workers.ai.limits.link import Link, Script
from workers.ai.limits.permit import WaitReason
from workers.ai.limits.protocol import LEASE_SECONDS, MARGIN_SECONDS, Ask, Change, Granted, Leaving, Refused
from workers.ai.limits.scopes import Scope

_ENTER, _LEAVE, _RENEW = Script("enter.lua"), Script("leave.lua"), Script("renew.lua")
_LEASE_MS = int(LEASE_SECONDS * 1000)


class SharedGates:
    """The fleet's gates.

    Args:
        link: Where the scripts run.
        window_seconds: In which requests and tokens are counted.
    """

    def __init__(self, link: Link, *, window_seconds: float) -> None:
        self._link = link
        self._window_ms = int((window_seconds + MARGIN_SECONDS) * 1000)
        self._epoch: int | None = None

    async def enter(
        self, ask: Ask, *, wait_seconds: float, park: bool, lost: Callable[[Granted], None]
    ) -> Granted | Refused:
        """Grant a pass at the first target that has room.

        Args:
            ask: Who wants what.
            wait_seconds: How long it would wait in this process.
            park: Do not let it wait here.
            lost: Called with a pass that was granted when nobody waited for it any more.

        Raises:
            Unreachable: Redis does not answer.
        """
        argument = {
            "targets": [[_limits(scope) for scope in scopes] for scopes in ask.targets],
            "tokens": ask.tokens,
            "command": ask.command_id,
            "pass": ask.pass_id,
            "room": ask.room,
            "batch": ask.batch,
            "window": self._window_ms,
            "lease": _LEASE_MS,
            "wait": int(wait_seconds * 1000),
            "park": park,
        }

        def orphan(reply: Any) -> None:
            answer = _answer(reply)
            if isinstance(answer, Granted):
                lost(answer)

        reply = self._link.ask(_ENTER, argument, orphan=orphan)
        try:
            return _answer(await reply)
        except asyncio.CancelledError:
            if reply.done() and not reply.cancelled() and reply.exception() is None:
                orphan(reply.result())  # it came in the moment of the cancellation
            raise

    def leave(self, leaving: Leaving, *, done: Callable[[list[Change]], None]) -> None:
        """Give a pass back; when Redis does not answer, its lease ends by itself.

        Args:
            leaving: The call that is over.
            done: Called when Redis knows, or does not answer, with the breakers that changed.
        """
        report = leaving.report
        about = next((scope.name for scope in leaving.scopes if scope.role == report.about), "")
        argument = {
            "pass": leaving.pass_id,
            "command": leaving.command_id,
            "granted": leaving.granted_at_ms,
            "age": int((monotonic() - leaving.granted_at) * 1000),
            "milliseconds": int(report.seconds * 1000),
            "tokens": -1 if report.tokens is None else report.tokens,
            "linger": int(report.linger_seconds * 1000),
            "unused": report.unused,
            "scopes": [[*_limits(scope), report.verdicts[scope.role]] for scope in leaving.scopes],
            "about": about,
            "cooldown": int(report.cooldown_seconds * 1000),
            "limited": report.limited,
            "shrink": report.shrink,
            "dead": report.dead,
        }

        def settle(reply: asyncio.Future[Any]) -> None:
            failed = reply.cancelled() or reply.exception() is not None
            done([] if failed else [_change(line) for line in reply.result()])

        self._link.ask(_LEAVE, argument).add_done_callback(settle)

    async def renew(
        self,
        *,
        held: Mapping[str, Iterable[str]],
        probes: Iterable[tuple[str, str]],
        watched: Sequence[str],
        log: Iterable[tuple[str, str, float, int]],
        retell: bool,
    ) -> list[int]:
        """Keep what this process holds, also if Redis has lost it.

        Args:
            held: Scope to passes.
            probes: Scope and pass.
            watched: Scopes whose state is wanted.
            log: Grants within the window: scope, pass, age in seconds, tokens; told to a Redis that lost its memory.
            retell: Tell them in any case: Redis was away.

        Returns:
            For each watched scope 0 (closed), 1 (recovering) or 2 (open).

        Raises:
            Unreachable: Redis does not answer.
        """
        passes = [[scope, list(passes)] for scope, passes in held.items()]
        tried = [list(probe) for probe in probes]
        epoch, *states = await self._link.ask(_RENEW, self._renewal(passes=passes, probes=tried, watched=list(watched)))
        if retell or self._epoch not in {None, epoch}:
            entries = [[scope, passed, int(age * 1000), tokens] for scope, passed, age, tokens in log]
            await self._link.ask(_RENEW, self._renewal(passes=passes, probes=tried, logs=entries))
        self._epoch = epoch
        return cast("list[int]", states)

    def count_from_now(self, ask: Ask, place: int) -> None:
        """Let a call that goes out long after its grant count from now on, as its provider will.

        Args:
            ask: Whose.
            place: Of its target.
        """
        entries = [[scope.name, ask.pass_id, 0, min(ask.tokens, scope.tokens)] for scope in ask.targets[place]]
        self._link.ask(_RENEW, self._renewal(logs=entries)).add_done_callback(asyncio.Future.exception)  # a courtesy

    def _renewal(self, **some: list[Any]) -> dict[str, Any]:
        nothing: dict[str, list[Any]] = {"passes": [], "probes": [], "watched": [], "logs": []}
        return {"lease": _LEASE_MS, "window": self._window_ms, **nothing, **some}


def _limits(scope: Scope) -> list[Any]:
    return [scope.name, scope.in_flight, scope.requests, scope.tokens]


def _answer(reply: Any) -> Granted | Refused:
    if reply[0] == 1:
        _, place, at_ms, *probes = reply
        return Granted(place, frozenset(scope.decode() for scope in probes), at_ms)
    _, parked, milliseconds, reason, refused, dead = reply
    return Refused(parked == 1, milliseconds / 1000, cast("WaitReason", reason.decode()), refused, dead == 1)


def _change(line: bytes) -> Change:
    scope, state, kind, milliseconds = line.decode().rsplit(" ", 3)
    return Change(scope, "open" if state == "open" else "recovering", kind, float(milliseconds) / 1000)
