"""The gate tells how much of the machine's time was stolen."""

import pytest

from tests import stolen_time

STAT = "cpu  {user} 0 200 5000 30 0 10 {steal} 4000 0\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n"


def test_stolen_time_is_a_share_of_all_time_between_two_looks() -> None:
    before = stolen_time.counters(STAT.format(user=1000, steal=100))
    after = stolen_time.counters(STAT.format(user=1150, steal=150))

    assert before == (100, 1000 + 200 + 5000 + 30 + 10 + 100)
    assert stolen_time.percent(before, after) == 25.0
    assert stolen_time.percent(before, before) == 0.0


def test_what_it_prints_first_is_what_it_takes_later() -> None:
    now = stolen_time.main(["now"])

    assert 0 <= float(stolen_time.main(["since", now])) <= 100


def test_what_is_no_counter_is_told() -> None:
    with pytest.raises(ValueError, match="begins with 'intr'"):
        stolen_time.counters("intr 5 6\n")
