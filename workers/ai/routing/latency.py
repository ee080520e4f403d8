"""Estimates how long a target would take to answer, from what its calls took and what those in flight are taking.

A peak EWMA: a sample above the estimate replaces it at once, one below draws it down slowly. The time to the first token
and the time per output token are kept apart, so that long answers do not look like a slow provider. See "peak EWMA" in
https://github.com/twitter/finagle/blob/develop/finagle-core/src/main/scala/com/twitter/finagle/loadbalancer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp
from time import monotonic

_TAU_SECONDS = 8.0
_FADE_PER_DECISION_SECONDS = 1.0
_FEW_TOKENS = 16
"""A plain call's time is spread over at least so many tokens: most of a short answer's time is no token's."""
_TELLING_SECONDS = 0.25
"""Less streaming than this says nothing about a pace."""

_UNKNOWN_FIRST_TOKEN_SECONDS = 0.5
_UNKNOWN_TOKEN_SECONDS = 0.02


@dataclass(slots=True)
class PeakEwma:
    """A moving average that follows peaks at once."""

    value: float | None = None
    _at: float = 0.0

    def observe(self, sample: float, now: float) -> None:
        """Take a sample.

        Args:
            sample: Seconds.
            now: The time of the sample.
        """
        if self.value is None or sample > self.value:
            self.value = sample
        else:
            kept = exp(-(now - self._at) / _TAU_SECONDS)
            self.value = self.value * kept + sample * (1 - kept)
        self._at = now

    def faded(self, seconds: float) -> float | None:
        """The value after so much time in which nothing was learnt; optimism that brings a healed target back."""
        return None if self.value is None else self.value * exp(-seconds / _TAU_SECONDS)


class Call:
    """One call in flight, as far as its latency goes.

    Args:
        record: What is known about its target.
        clock: Seconds that only grow.
    """

    def __init__(self, record: "Record", clock: Callable[[], float]) -> None:
        self._record = record
        self._clock = clock
        self._began_at = clock()
        self._first_at: float | None = None
        self._pieces = 0
        self._over = False
        record.began(self, self._began_at)

    def first_token(self) -> None:
        """The first piece of the answer arrived."""
        self.piece()

    def piece(self) -> None:
        """A piece of the answer arrived; the first one is the first token."""
        if self._over:
            return
        now = self._clock()
        if self._first_at is None:
            self._first_at = now
            self._record.spoke(self, now, seconds=now - self._began_at)
        self._pieces += 1
        self._record.pieces += 1

    def end(self, tokens_out: int | None, *, ok: bool) -> None:
        """The call is over; further calls do nothing.

        Args:
            tokens_out: Tokens of the answer; None when the provider did not say.
            ok: Whether there is a whole answer.
        """
        if self._over:
            return
        self._over = True
        now = self._clock()
        self._record.ended(self, now, first_at=self._first_at, pieces=self._pieces)
        if not ok:
            self._record.failed(now, seconds=now - self._began_at, spoke=self._first_at is not None)
        elif self._first_at is None:
            self._record.answered_whole(now, seconds=now - self._began_at, tokens=tokens_out)
        else:
            self._record.answered(now, seconds=now - self._first_at, tokens=tokens_out, pieces=self._pieces)


@dataclass(slots=True)
class Record:
    """What is known about one target's latency."""

    first_token: PeakEwma = field(default_factory=PeakEwma)
    """Seconds to the first token."""
    token: PeakEwma = field(default_factory=PeakEwma)
    """Seconds for each output token."""
    piece: PeakEwma = field(default_factory=PeakEwma)
    """Seconds for each piece of a stream, which may hold several tokens."""
    in_flight: int = 0
    pieces: int = 0
    """Pieces that the calls in flight have brought."""
    _silent: dict[Call, float] = field(default_factory=dict)
    """Calls without a first token, oldest first, and when they began."""
    _speaking: int = 0
    _spoke_at_sum: float = 0.0
    _learnt_at: float | None = None
    _passed_over: int = 0

    def began(self, call: Call, now: float) -> None:
        """A call goes out."""
        self.in_flight += 1
        self._silent[call] = now

    def spoke(self, call: Call, now: float, *, seconds: float) -> None:
        """A call's first token arrived after so many seconds."""
        self._silent.pop(call, None)
        self._speaking += 1
        self._spoke_at_sum += now
        self._learn(now)
        self.first_token.observe(seconds, now)

    def ended(self, call: Call, now: float, *, first_at: float | None, pieces: int) -> None:
        """A call is over, however it ended."""
        del now
        self.in_flight -= 1
        self.pieces -= pieces
        if first_at is None:
            self._silent.pop(call, None)
        else:
            self._speaking -= 1
            self._spoke_at_sum -= first_at

    def answered(self, now: float, *, seconds: float, tokens: int | None, pieces: int) -> None:
        """A stream took so long from its first token to its end."""
        self._learn(now)
        if tokens:
            self.token.observe(seconds / tokens, now)
        self.piece.observe(seconds / pieces, now)

    def answered_whole(self, now: float, *, seconds: float, tokens: int | None) -> None:
        """An answer came in one piece: its first token and its last arrived together."""
        self._learn(now)
        if tokens:
            self.first_token.observe(0.0, now)
            self.token.observe(seconds / max(tokens, _FEW_TOKENS), now)
        else:
            self.first_token.observe(seconds, now)

    def failed(self, now: float, *, seconds: float, spoke: bool) -> None:
        """A call broke off: quick failures must not look like speed, slow ones are slowness."""
        known = self.first_token.value
        if not spoke and known is not None and seconds > known:
            self._learn(now)
            self.first_token.observe(seconds, now)

    def passed_over(self) -> None:
        """Another target was preferred."""
        self._passed_over += 1

    def _learn(self, now: float) -> None:
        self._learnt_at = now
        self._passed_over = 0

    def estimate(self, now: float) -> tuple[float | None, float | None]:
        """Seconds to the first token and for each token after it; None where nothing is known.

        What is known fades while other targets are preferred, by a second for each decision at most: little traffic
        shall not spend itself on finding out whether a slow target is still slow.
        """
        unlearnt = 0.0 if self._learnt_at is None else now - self._learnt_at
        fading = min(unlearnt, self._passed_over * _FADE_PER_DECISION_SECONDS)
        first, token, piece = (one.faded(fading) for one in (self.first_token, self.token, self.piece))
        oldest = next(iter(self._silent.values()), None)
        # what is still on its way takes at least as long as it has taken so far
        if oldest is not None and first is not None:
            first = max(first, now - oldest)
        streaming = now * self._speaking - self._spoke_at_sum
        if token is not None and piece and streaming > _TELLING_SECONDS:
            pace = streaming / (self.pieces + self._speaking)
            token *= max(1.0, pace / piece)
        return first, token


class Latencies:
    """What is known about every target's latency in this process.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._records: dict[str, Record] = {}

    def begin(self, target: str) -> Call:
        """A call goes out.

        Args:
            target: Its target's name.
        """
        return Call(self._record(target), self._clock)

    def in_flight(self, target: str) -> int:
        """Calls of this process that are on their way."""
        return self._record(target).in_flight

    def passed_over(self, target: str) -> None:
        """Another target was preferred."""
        self._record(target).passed_over()

    def seconds(self, targets: list[str], *, tokens_out: int) -> dict[str, float]:
        """How long each would take to answer.

        One of which nothing is known is taken to be as fast as the fastest of the others: it gets its chance, and calls
        in flight keep it from getting everything.

        Args:
            targets: Names.
            tokens_out: Tokens that the answer is expected to have.
        """
        now = self._clock()
        known = {target: self._record(target).estimate(now) for target in targets}
        first = min((one for one, _ in known.values() if one is not None), default=_UNKNOWN_FIRST_TOKEN_SECONDS)
        token = min((one for _, one in known.values() if one is not None), default=_UNKNOWN_TOKEN_SECONDS)
        return {
            target: (first if own_first is None else own_first) + (token if own is None else own) * tokens_out
            for target, (own_first, own) in known.items()
        }

    def _record(self, target: str) -> Record:
        return self._records.setdefault(target, Record())
