"""Whether a soak tells a leak from the coming and going of a busy process."""

import random

from tests.soak.memory import Slope, slope

MINUTES = [second / 60 for second in range(0, 3600, 5)]


def measured(mebibytes: list[float]) -> Slope:
    found = slope(MINUTES, mebibytes, warm_up_minutes=10, window_minutes=0.6)
    assert found is not None
    return found


def noise(spread: float) -> list[float]:
    chance = random.Random(7)
    return [chance.choice((0.0, spread)) + chance.random() for _ in MINUTES]


def test_a_megabyte_a_minute_is_told_from_0_through_steps_of_eight() -> None:
    found = measured([60 + minute + up for minute, up in zip(MINUTES, noise(8), strict=True)])

    assert found.grows(1.0)
    assert 55 < found.middle < 65


def test_coming_and_going_without_a_trend_does_not_grow() -> None:
    assert not measured([60 + up for up in noise(8)]).grows(1.0)


def test_what_fills_during_the_warm_up_does_not_count() -> None:
    filling = [60 + 20 * min(1.0, minute / 9) + up for minute, up in zip(MINUTES, noise(2), strict=True)]

    assert not measured(filling).grows(1.0)


def test_a_run_of_minutes_has_no_slope() -> None:
    assert slope(MINUTES[:100], [60.0] * 100, warm_up_minutes=0, window_minutes=0.6) is None
