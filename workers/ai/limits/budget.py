"""Bounds the extra calls of a process: a provider in trouble must not be met with a multiple of its usual load."""

from collections.abc import Callable
from time import monotonic

_FLOOR = 10.0
_CEILING = 100.0
_FLOOR_REFILL_SECONDS = 6.0


class RetryBudget:
    """A bucket of extra calls: each first call adds a share of one, each extra call takes one.

    With little traffic the share alone would never allow a failover, so the bucket begins with ten and, below ten, also
    gains one every six seconds.

    Args:
        share: Extra calls for each first call, 0 to 1; with 0 there are no extra calls at all.
        clock: Seconds that only grow.
    """

    def __init__(self, share: float, *, clock: Callable[[], float] = monotonic) -> None:
        self._share = share
        self._clock = clock
        self._balance = _FLOOR if share > 0 else 0.0
        self._refilled_at = clock()

    def first(self) -> None:
        """A command makes its first call."""
        self._balance = min(self._balance + self._share, _CEILING)

    def extra(self) -> bool:
        """Take leave for one extra call; False when the budget is used up: the command waits in the broker instead."""
        self._refill()
        if self._balance < 1:
            return False
        self._balance -= 1
        return True

    def _refill(self) -> None:
        now = self._clock()
        if self._share > 0 and self._balance < _FLOOR:
            gained = (now - self._refilled_at) / _FLOOR_REFILL_SECONDS
            self._balance = min(self._balance + gained, _FLOOR)
        self._refilled_at = now
