"""The breaker, cooldown and adaptive gate of one scope within one process; `leave.lua` is the same for the fleet.

    closed ──── 3 commands in a row, or > 10 % of ≥ 20 calls, failed; or a dead key ────► open (2 s, doubling to 60 s)
      ▲                                                                                    │ time is over
      │ 64 calls at once are allowed, or 10 s passed                                       ▼
    recovering: 2 at once, one more for each success ◄──── served ──── half-open: a single probe ──── failed ──► open

Times are seconds of a clock that only grows.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from workers.ai.limits.protocol import LEASE_SECONDS, Change, Leaving
from workers.ai.limits.scopes import Report, Scope, Verdict

_FIRST_OPEN_SECONDS, _LONGEST_OPEN_SECONDS, _DEAD_SECONDS = 2.0, 60.0, 300.0
_RAMP_SECONDS, _RAMP_FREE = 10.0, 64
_FAILED_IN_A_ROW, _LEAST_CALLS, _FAILING_SHARE = 3, 20, 0.1
_ROLLING_SECONDS = 60.0
_LONGEST_LIMITED_SECONDS = 30.0
_SHRINK, _GROW_AFTER = 0.7, 10


@dataclass(slots=True)
class Breaker:
    """What one process knows about one scope."""

    open_until: float | None = None
    """Half-open once that has passed."""
    open_kind: Literal["out", "rate", "dead"] = "out"
    probe: str | None = None
    """The pass that tries."""
    probe_since: float = 0.0
    probe_until: float = 0.0
    ramp: int | None = None
    """Calls allowed at once while recovering."""
    cool_until: float = 0.0
    cool_tried_at: float = float("-inf")
    """When it was last told to cool down, or a call was let out all the same."""
    gate: int | None = None
    """Calls allowed at once since the provider had too many."""
    mean_seconds: float = 1.0
    _open_seconds: float | None = None
    _ramp_until: float = 0.0
    _recovered_at: float = 0.0
    _cool_seconds: float = 0.5
    _cooled_at: float = 0.0
    _gate_served: int = 0
    _gated_at: float = 0.0
    _row: set[str] = field(default_factory=set)
    _calls: deque[tuple[float, bool]] = field(default_factory=deque)

    def recovering(self, now: float) -> bool:
        """Whether a ramp bounds the calls at once."""
        if self.ramp is not None and self._ramp_until <= now:
            self._free()
        return self.ramp is not None

    def renew(self, pass_id: str, now: float) -> None:
        """A pass is still held."""
        if self.probe == pass_id:
            self.probe_until = now + LEASE_SECONDS

    def try_out(self, pass_id: str, now: float) -> None:
        """A pass is the probe."""
        self.probe, self.probe_since, self.probe_until = pass_id, now, now + LEASE_SECONDS

    def hear(self, leaving: Leaving, scope: Scope, *, calls: int, now: float) -> Change | None:
        """Take the end of a call into account.

        Args:
            leaving: The call.
            scope: Whose breaker this is.
            calls: In flight when it ended, counting it.
            now: The time.
        """
        report, granted_at = leaving.report, leaving.granted_at
        verdict = report.verdicts[scope.role]
        change = self._judge(leaving, verdict, granted_at=granted_at, now=now)
        if verdict == "ok":
            self._praise(report, scope, granted_at)
        if report.about == scope.role:
            change = self._blame(report, scope, calls=calls, granted_at=granted_at, now=now) or change
        return Change(scope.name, *change) if change is not None else None

    def _judge(self, leaving: Leaving, verdict: Verdict, *, granted_at: float, now: float) -> "_Change | None":
        self.recovering(now)
        if self.probe == leaving.pass_id:
            self.probe = None
            if verdict == "fail":
                return self._open(self.open_kind, self._longer(), now)
            if verdict in {"ok", "alive"}:
                self.open_until = None
                self._row.clear()
                self.ramp, self._ramp_until, self._recovered_at = 2, now + _RAMP_SECONDS, now
                return "recovering", "-", 0.0
        elif self.open_until is not None or granted_at < self._recovered_at:
            return None  # from before it was opened, or a last resort: says nothing new
        elif verdict == "fail":
            return self._failed(leaving.command_id, now)
        elif verdict in {"ok", "alive"}:
            self._row.clear()
            if verdict == "ok":
                self._count(now, failed=False)
                if self.ramp is not None:
                    self.ramp += 1
                    if self.ramp >= _RAMP_FREE:
                        self._free()
        return None

    def _failed(self, command_id: str, now: float) -> "_Change | None":
        self._count(now, failed=True)
        self._row.add(command_id)
        if len(self._row) >= _FAILED_IN_A_ROW:
            return self._open("out", self._longer(), now)
        failures = sum(failed for _, failed in self._calls)
        if len(self._calls) >= _LEAST_CALLS and failures > len(self._calls) * _FAILING_SHARE:
            return self._open("rate", self._longer(), now)
        if self.ramp is not None:
            self.ramp = max(1, self.ramp // 2)
        return None

    def _count(self, now: float, *, failed: bool) -> None:
        """Remember a call for as long as it counts: a provider that never fails must not fill the memory."""
        self._calls.append((now, failed))
        while self._calls[0][0] <= now - _ROLLING_SECONDS:
            self._calls.popleft()

    def _open(self, kind: Literal["out", "rate", "dead"], seconds: float, now: float) -> "_Change":
        self.open_kind, self._open_seconds, self.open_until = kind, seconds, now + seconds
        self.probe, self.ramp = None, None
        self._row.clear()
        self._calls.clear()
        return "open", kind, seconds

    def _longer(self) -> float:
        return min((self._open_seconds or _FIRST_OPEN_SECONDS / 2) * 2, _LONGEST_OPEN_SECONDS)

    def _free(self) -> None:
        self.ramp, self._open_seconds = None, None

    def _praise(self, report: Report, scope: Scope, granted_at: float) -> None:
        if granted_at >= self.cool_tried_at:  # it was tried since, and answered
            self.cool_until, self.cool_tried_at = 0.0, float("-inf")
        self.mean_seconds = self.mean_seconds * 0.8 + report.seconds * 0.2
        self._cool_seconds = 0.5
        if self.gate is not None:
            self._gate_served += 1
            if self._gate_served >= _GROW_AFTER:
                self.gate, self._gate_served = self.gate + 1, 0
            if 0 < scope.in_flight <= self.gate:
                self.gate = None

    def _blame(self, report: Report, scope: Scope, *, calls: int, granted_at: float, now: float) -> "_Change | None":
        if report.cooldown_seconds > 0:
            self.cool_until, self.cool_tried_at = max(self.cool_until, now + report.cooldown_seconds), now
        if report.limited and granted_at > self._cooled_at:
            self._cool_seconds, self._cooled_at = min(self._cool_seconds * 2, _LONGEST_LIMITED_SECONDS), now
            self.cool_until, self.cool_tried_at = max(self.cool_until, now + self._cool_seconds), now
        if report.shrink and granted_at > self._gated_at:
            places = min(calls, *(bound for bound in (scope.in_flight, self.gate or 0, calls) if bound > 0))
            self.gate, self._gate_served, self._gated_at = max(1, int(places * _SHRINK)), 0, now
        if report.dead and not (self.open_kind == "dead" and (self.open_until or 0.0) > now):
            return self._open("dead", _DEAD_SECONDS, now)
        return None


_Change = tuple[Literal["open", "recovering"], str, float]
