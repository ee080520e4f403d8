from workers.ai.limits import RetryBudget


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_extra_calls_are_a_share_of_the_first_ones() -> None:
    clock = Clock()
    budget = RetryBudget(0.1, clock=clock)
    extra = 0
    for _ in range(1000):
        budget.first()
        extra += budget.extra()

    assert extra == 10 + 100 - 1  # what it began with, and a tenth; the last tenth is not whole yet


def test_little_traffic_may_fail_over() -> None:
    clock = Clock()
    budget = RetryBudget(0.1, clock=clock)
    taken = [budget.extra() for _ in range(12)]
    clock.now = 60.0

    assert taken == [True] * 10 + [False] * 2
    assert [budget.extra() for _ in range(11)] == [True] * 10 + [False]


def test_a_share_of_nothing_allows_nothing() -> None:
    clock = Clock()
    budget = RetryBudget(0, clock=clock)
    budget.first()
    clock.now = 3600.0

    assert not budget.extra()
