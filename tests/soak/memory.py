"""Memory of each process over time, and whether it grows: resident bytes from the operating system, and a robust slope.

A process that works allocates and frees all the time, so single samples say little: the samples of each window are reduced
to their median, and the slope of the medians is Theil and Sen's (the median of all pairs' slopes) with its interval.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy.stats import theilslopes

from tests.benchmarks.accounting import usage

CONFIDENCE = 0.99
_FEWEST_MINUTES = 10
"""Less than this after the warm-up gives no slope: a page more or less would be megabytes an hour."""


@dataclass(frozen=True, slots=True)
class Slope:
    """How fast something grows, in MiB an hour, with the interval that holds the true value with `CONFIDENCE`."""

    low: float
    middle: float
    high: float

    def grows(self, bound: float) -> bool:
        """Whether it can be told from 0, and is more than a bound.

        Args:
            bound: MiB an hour.
        """
        return self.low > 0 and self.middle > bound


@dataclass(slots=True)
class History:
    """Resident memory of some processes, sample after sample."""

    minutes: list[float] = field(default_factory=list)
    mebibytes: dict[str, list[float]] = field(default_factory=dict)

    def sample(self, minute: float, pids: Mapping[str, int]) -> None:
        """Read each process's memory now.

        Args:
            minute: Since the beginning.
            pids: Process ids by name, the same ones each time.
        """
        self.minutes.append(minute)
        for name, value in usage(pids).resident_mib.items():
            self.mebibytes.setdefault(name, []).append(value)

    def slopes(self, *, warm_up_minutes: float, window_minutes: float) -> dict[str, Slope | None]:
        """The slope of each process after the warm-up; None where there is too little to tell one.

        Args:
            warm_up_minutes: What is left out at the beginning: pools, caches and buffers fill.
            window_minutes: Length of the windows whose medians are taken.
        """
        return {
            name: slope(self.minutes, values, warm_up_minutes=warm_up_minutes, window_minutes=window_minutes)
            for name, values in self.mebibytes.items()
        }


def slope(
    minutes: Sequence[float], mebibytes: Sequence[float], *, warm_up_minutes: float, window_minutes: float
) -> Slope | None:
    """The slope of one series; see `History.slopes`.

    Args:
        minutes: When each sample was taken.
        mebibytes: The samples.
        warm_up_minutes: What is left out at the beginning.
        window_minutes: Length of the windows whose medians are taken.
    """
    windows: dict[int, list[float]] = {}
    for minute, value in zip(minutes, mebibytes, strict=True):
        if minute >= warm_up_minutes:
            windows.setdefault(int((minute - warm_up_minutes) // window_minutes), []).append(value)
    if not minutes or minutes[-1] - warm_up_minutes < _FEWEST_MINUTES:
        return None
    hours = [number * window_minutes / 60 for number in windows]
    middle, _, low, high = theilslopes([statistics.median(values) for values in windows.values()], hours, CONFIDENCE)
    return Slope(float(low), float(middle), float(high))
