"""Gates within one process, for when there is no Redis: the same rules as `enter.lua` and `leave.lua`, bounds per process.

They are kept beside those in Redis all the time, so that they know what this process has in flight when Redis goes away.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf

from workers.ai.limits.breaker import Breaker
from workers.ai.limits.permit import WaitReason
from workers.ai.limits.protocol import MARGIN_SECONDS, Ask, Change, Granted, Leaving, Refused
from workers.ai.limits.scopes import Scope

_EARLY_SECONDS, _LEAST_SECONDS, _POLL_SECONDS, _PURGE_SECONDS = 1.0, 0.2, 0.5, 30.0
_SPREAD_WIDELY = 500


@dataclass(slots=True)
class _Grant:
    """An entry of the sliding logs."""

    pass_id: str
    at: float
    tokens: int


@dataclass(slots=True)
class _Gate:
    """One scope."""

    breaker: Breaker = field(default_factory=Breaker)
    held: set[str] = field(default_factory=set)
    """Passes of calls that are under way."""
    lingering: dict[str, float] = field(default_factory=dict)
    """Passes of calls that were given up, and until when each still counts."""
    log: deque[_Grant] = field(default_factory=deque)
    tokens: int = 0
    """In the log."""
    parked: dict[str, tuple[bool, float, float]] = field(default_factory=dict)
    """Commands: batch, ticket, time of return."""
    urgent: dict[str, float] = field(default_factory=dict)
    """Rooms in which interactive calls wait, and until when that counts."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: WaitReason
    first: float
    """Seconds until the earliest room."""
    later: Callable[[int], float]
    """The same for who has so many others before it."""
    soft: bool = False
    """It only fails too often, or asked to be left alone."""
    awaits: bool = False
    """Some call's end makes room."""
    dead: bool = False
    """It is out of use until a person acts."""


class LocalGates:
    """The gates of this process.

    Args:
        window_seconds: In which requests and tokens are counted.
        clock: Seconds that only grow.
    """

    def __init__(self, *, window_seconds: float, clock: Callable[[], float]) -> None:
        self._window = window_seconds + MARGIN_SECONDS
        self._clock = clock
        self._gates: dict[str, _Gate] = {}

    def enter(self, ask: Ask, *, wait_seconds: float, park: bool) -> Granted | Refused:
        """Grant a pass at the first target that has room.

        Args:
            ask: Who wants what.
            wait_seconds: How long it would wait in this process.
            park: Do not let it wait here.
        """
        now = self._clock()
        soft: int | None = None
        best: tuple[float, int, Scope, _Refusal] | None = None
        for place, scopes in enumerate(ask.targets):
            refusals = [
                (refusal.later(len(self._gate(scope).parked)), scope, refusal)
                for scope in scopes
                if (refusal := self._refusal(ask, scope, now)) is not None
            ]
            if not refusals:
                return self._grant(ask, place, now)
            if soft is None and all(refusal.soft for _, _, refusal in refusals):
                soft = place
            worst = max(refusals, key=lambda one: one[0])
            if best is None or worst[0] < best[0]:
                best = (worst[0], place, worst[1], worst[2])
        if soft is not None:
            return self._grant(ask, soft, now, last_resort=True)
        if best is None:
            raise ValueError("no target was asked for")
        _, place, scope, refusal = best
        if park or refusal.first > wait_seconds:
            seconds = self._park(ask, scope, refusal, now)
            return Refused(parked=True, seconds=seconds, reason=refusal.reason, place=place, dead=refusal.dead)
        if not ask.batch:
            self._gate(scope).urgent[ask.room] = now + _POLL_SECONDS + 0.2
        again = _POLL_SECONDS if refusal.awaits else min(max(refusal.first, 0.001), _POLL_SECONDS)
        return Refused(parked=False, seconds=again, reason=refusal.reason, place=place)

    def adopt(self, ask: Ask, place: int) -> None:
        """Count a pass that Redis granted.

        Args:
            ask: Whose.
            place: Of its target.
        """
        self._grant(ask, place, self._clock(), last_resort=True)

    def leave(self, leaving: Leaving) -> list[Change]:
        """Give a pass back.

        Args:
            leaving: The call that is over.

        Returns:
            The breakers that changed.
        """
        now = self._clock()
        report = leaving.report
        changes: list[Change] = []
        for scope in leaving.scopes:
            gate = self._gate(scope)
            calls = self._in_flight(gate, now)
            gate.held.discard(leaving.pass_id)
            if report.linger_seconds > 0:
                gate.lingering[leaving.pass_id] = now + report.linger_seconds
            if report.unused or report.tokens is not None:
                self._settle(gate, scope, leaving)
            change = gate.breaker.hear(leaving, scope, calls=max(calls, 1), now=now)
            if change is not None:
                changes.append(change)
        return changes

    def renew(self, held: Iterable[tuple[str, tuple[Scope, ...]]]) -> None:
        """These passes are still held.

        Args:
            held: Each with its scopes.
        """
        now = self._clock()
        for pass_id, scopes in held:
            for scope in scopes:
                self._gate(scope).breaker.renew(pass_id, now)

    def log(self) -> list[tuple[str, str, float, int]]:
        """Grants within the window: scope, pass, age in seconds, tokens."""
        now = self._clock()
        return [
            (name, grant.pass_id, now - grant.at, grant.tokens)
            for name, gate in self._gates.items()
            for grant in gate.log
            if grant.at > now - self._window
        ]

    def states(self, scopes: Iterable[str]) -> list[int]:
        """How breakers stand: 0 closed, 1 recovering, 2 open.

        Args:
            scopes: Names.
        """
        now = self._clock()
        breakers = [gate.breaker if (gate := self._gates.get(name)) is not None else Breaker() for name in scopes]
        return [2 if one.open_until is not None else int(one.recovering(now)) for one in breakers]

    def _gate(self, scope: Scope) -> _Gate:
        return self._gates.setdefault(scope.name, _Gate())

    def _refusal(self, ask: Ask, scope: Scope, now: float) -> _Refusal | None:
        gate = self._gate(scope)
        shut = _of_cooldown(gate.breaker, now, alone=len(ask.targets) == 1) or _of_breaker(gate.breaker, now)
        if shut is not None and not shut.soft:
            return shut
        return (
            self._of_places(gate, scope, now)
            or self._of_requests(gate, scope, now)
            or self._of_tokens(gate, scope, ask.tokens, now)
            or self._of_urgency(gate, scope, now, batch=ask.batch)
            or shut
        )

    def _of_places(self, gate: _Gate, scope: Scope, now: float) -> _Refusal | None:
        breaker, calls = gate.breaker, self._in_flight(gate, now)
        mean = breaker.mean_seconds
        if breaker.recovering(now) and breaker.ramp is not None and calls >= breaker.ramp:
            pace = mean / breaker.ramp
            return _Refusal("recovering", 0.0, lambda n: min(n * pace, _spread(n)), awaits=True)
        places = min(bound for bound in (scope.in_flight, breaker.gate or 0, inf) if bound > 0)
        if calls >= places:
            return _Refusal("in_flight", 0.0, lambda n: n * mean / places, awaits=True)
        return None

    def _of_requests(self, gate: _Gate, scope: Scope, now: float) -> _Refusal | None:
        self._forget_old(gate, now)
        limit, count = scope.requests, len(gate.log)
        if not limit or count < limit:
            return None

        def later(n: int) -> float:
            return gate.log[count - limit + n % limit].at + self._window * (1 + n // limit) - now

        return _Refusal("requests_per_minute", later(0), later)

    def _of_tokens(self, gate: _Gate, scope: Scope, tokens: int, now: float) -> _Refusal | None:
        wanted = min(tokens, scope.tokens)
        excess = gate.tokens + wanted - scope.tokens
        if not scope.tokens or excess <= 0:
            return None
        at = now
        for grant in gate.log:
            at, excess = grant.at, excess - grant.tokens
            if excess <= 0:
                break
        first, pace = at + self._window - now, wanted * self._window / scope.tokens
        return _Refusal("tokens_per_minute", first, lambda n: first + n * pace)

    def _of_urgency(self, gate: _Gate, scope: Scope, now: float, *, batch: bool) -> _Refusal | None:
        """Batch calls stand back while interactive ones wait."""
        if not batch or all(until <= now for until in gate.urgent.values()):
            return None
        pace = gate.breaker.mean_seconds / max(scope.in_flight, 1)
        return _Refusal("in_flight", 0.0, lambda n: n * pace, awaits=True)

    def _in_flight(self, gate: _Gate, now: float) -> int:
        for pass_id in [pass_id for pass_id, until in gate.lingering.items() if until <= now]:
            del gate.lingering[pass_id]
        return len(gate.held) + len(gate.lingering)

    def _forget_old(self, gate: _Gate, now: float) -> None:
        while gate.log and gate.log[0].at <= now - self._window:
            gate.tokens -= gate.log.popleft().tokens

    def _grant(self, ask: Ask, place: int, now: float, *, last_resort: bool = False) -> Granted:
        probes: list[str] = []
        for scope in ask.targets[place]:
            gate = self._gate(scope)
            gate.held.add(ask.pass_id)
            if scope.requests or scope.tokens:
                self._forget_old(gate, now)
                tokens = min(ask.tokens, scope.tokens)
                gate.log.append(_Grant(ask.pass_id, now, tokens))
                gate.tokens += tokens
            gate.urgent.pop(ask.room, None)
            gate.parked.pop(ask.command_id, None)
            if gate.breaker.cool_until > now:
                gate.breaker.cool_tried_at = now
            if gate.breaker.open_until is not None and not last_resort:
                gate.breaker.try_out(ask.pass_id, now)
                probes.append(scope.name)
        for scope in (scope for scopes in ask.targets for scope in scopes):
            self._gate(scope).parked.pop(ask.command_id, None)
        return Granted(place, frozenset(probes))

    def _settle(self, gate: _Gate, scope: Scope, leaving: Leaving) -> None:
        grant = next((grant for grant in reversed(gate.log) if grant.pass_id == leaving.pass_id), None)
        if grant is None:
            return
        if leaving.report.unused:
            gate.log.remove(grant)
            gate.tokens -= grant.tokens
        elif scope.tokens and leaving.report.tokens is not None:
            gate.tokens += leaving.report.tokens - grant.tokens
            grant.tokens = leaving.report.tokens

    def _park(self, ask: Ask, scope: Scope, refusal: _Refusal, now: float) -> float:
        parked = self._gate(scope).parked
        for gone in [command for command, (_, _, due) in parked.items() if due <= now - _PURGE_SECONDS]:
            del parked[gone]
        own = parked.get(ask.command_id, (ask.batch, now, 0.0))
        rank = sum(other[:2] < own[:2] for command, other in parked.items() if command != ask.command_id)
        wait = refusal.later(rank)
        wait -= min(_EARLY_SECONDS, wait / 2)
        wait = max(_LEAST_SECONDS, wait)
        parked[ask.command_id] = (own[0], own[1], now + wait)
        return wait


def _of_cooldown(breaker: Breaker, now: float, *, alone: bool) -> _Refusal | None:
    """Whoever has no other candidate tries now and then all the same; an answer ends the cooldown."""
    first = breaker.cool_until - now
    if first <= 0:
        return None
    again = breaker.cool_tried_at + max(1.0, first / 20) - now if alone else first
    first = min(first, max(again, 0.0))
    return _Refusal("cooldown", first, lambda n: first + _spread(n), soft=alone and again <= 0)


def _of_breaker(breaker: Breaker, now: float) -> _Refusal | None:
    if breaker.open_until is None:
        return None
    soft = breaker.open_kind == "rate"
    if breaker.open_until > now:
        shut = breaker.open_until - now
        return _Refusal("open", shut, lambda n: shut + _spread(n), soft=soft, dead=breaker.open_kind == "dead")
    if breaker.probe is not None and breaker.probe_until > now:
        again = max(_POLL_SECONDS, now - breaker.probe_since)
        return _Refusal("open", again, lambda n: again + _spread(n), soft=soft)
    return None


def _spread(place: int) -> float:
    """Seconds between the end of an outage and the return of who has so many others before it."""
    near = min(place, _SPREAD_WIDELY)
    return near * 0.05 + (place - near) * 0.005
