"""When a command is tried again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.topology import RETRY_LEVELS, retry_level
from workers.retry_policy import GiveUp, Retry, next_try

NOW = datetime(2026, 5, 1, tzinfo=UTC)
FAR = NOW + timedelta(days=1)


def decide(**changes: object) -> Retry | GiveUp:
    wish: dict[str, object] = {
        "attempt": 1,
        "max_attempts": 8,
        "retry_after_seconds": None,
        "deadline_at": FAR,
        "now": NOW,
        "jitter": 0.0,
    }
    return next_try(**{**wish, **changes})  # type: ignore[arg-type]  # a table of keyword arguments


def test_the_wait_asked_for_is_never_cut_short() -> None:
    assert decide(retry_after_seconds=20.0) == Retry(NOW + timedelta(seconds=20))


def test_waits_grow_and_then_stay() -> None:
    delays = [(decide(attempt=n, max_attempts=99).at - NOW).total_seconds() for n in range(1, 9)]  # type: ignore[union-attr]  # all retries

    assert delays == [1, 5, 30, 120, 600, 600, 600, 600]


def test_the_last_attempt_is_final() -> None:
    assert decide(attempt=8) == GiveUp(expired=False)


def test_no_try_is_planned_behind_the_deadline() -> None:
    assert decide(retry_after_seconds=60.0, deadline_at=NOW + timedelta(seconds=59)) == GiveUp(expired=True)


@given(st.floats(min_value=0, max_value=7200))
def test_hops_through_the_wait_queues_end_close_to_the_time_asked_for(delay: float) -> None:
    left, hops = delay, 0
    while left > 2:
        left -= RETRY_LEVELS[retry_level(left)]
        hops += 1

    assert left > -5
    assert hops <= 20


@pytest.mark.parametrize(
    ("delay", "level"), [(3, "5s"), (5, "5s"), (20, "5s"), (29.6, "30s"), (119, "30s"), (600, "10m"), (1e6, "1h")]
)
def test_a_wait_does_not_overshoot(delay: float, level: str) -> None:
    assert retry_level(delay) == level
