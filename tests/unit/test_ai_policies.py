import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from workers.ai.configuration import Configuration, load
from workers.ai.routing.router import Candidate, Router


def loaded(folder: Path, policy: str, *providers: str, models: str = "") -> Configuration:
    """Providers named a, b, …, each with a model m and the lines given for its table."""
    names = [chr(ord("a") + place) for place in range(len(providers))]
    tables = [
        f'[providers.{name}]\ndialect = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n[providers.{name}.models.m]\n{lines}'
        for name, lines in zip(names, providers, strict=True)
    ]
    listed = ", ".join(f'"{name}/m"' for name in names)
    path = folder / "providers.toml"
    path.write_text("\n".join([*tables, f'[aliases.default]\npolicy = "{policy}"\nmodels = [{models or listed}]']))
    return load(path, secret_from_environment=lambda _: None)


class Simulation:
    """Calls at a steady rate against targets whose latency is set, in simulated time."""

    def __init__(self, configuration: Configuration, *, calls_per_second: float, tokens: int = 100) -> None:
        self.now = 0.0
        self.seconds: dict[str, Callable[[], float]] = {}
        self.streams = False
        self._router = Router(clock=lambda: self.now, random=Random(7))
        self._configuration = configuration
        self._interval = 1 / calls_per_second
        self._tokens = tokens
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def run(self, seconds: float) -> Counter[str]:
        """Returns the calls that went to each target meanwhile."""
        ends_at, counted = self.now + seconds, Counter[str]()
        while self.now < ends_at:
            self._until(self.now + self._interval)
            counted[self._call()] += 1
        return counted

    def _until(self, moment: float) -> None:
        while self._events and self._events[0][0] <= moment:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = moment

    def _call(self) -> str:
        route = self._router.route(
            self._configuration, model=None, provider=None, tokens_in=10, tokens_out=self._tokens
        )
        target = route.candidates[0].target
        call = self._router.begin(target)
        steps = self._steps(self.seconds[target.provider_name](), call)
        self._follow(steps)
        return target.provider_name

    def _steps(self, seconds: float, call: Any) -> Iterator[float]:
        if self.streams:
            for _ in range(self._tokens):
                yield seconds / self._tokens
                call.piece()
        else:
            yield seconds
        call.end(self._tokens, ok=True)

    def _follow(self, steps: Iterator[float]) -> None:
        wait = next(steps, None)
        if wait is not None:
            heapq.heappush(self._events, (self.now + wait, next(self._numbers), lambda: self._follow(steps)))


def share(counted: Counter[str], name: str) -> float:
    return counted[name] / counted.total()


def first_targets(configuration: Configuration, calls: int) -> Counter[str]:
    router = Router()
    return Counter(
        router.route(configuration, model=None, provider=None, tokens_in=10, tokens_out=100)
        .candidates[0]
        .target.provider_name
        for _ in range(calls)
    )


def candidates(configuration: Configuration, *, router: Router | None = None, **asked: Any) -> list[Candidate]:
    question = {"model": None, "provider": None, "tokens_in": 1000, "tokens_out": 1000, **asked}
    return list((router or Router(random=Random(1))).route(configuration, **question).candidates)


def test_equal_providers_get_equal_shares_under_weighted(tmp_path: Path) -> None:
    counted = first_targets(loaded(tmp_path, "weighted", "", "", ""), 3000)

    assert all(abs(counted[name] - 1000) <= 50 for name in "abc")


def test_weights_are_shares_and_turns_are_spread(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, "weighted", "weight = 5", "weight = 1", "weight = 1")
    router = Router()

    turns = [candidates(configuration, router=router)[0].target.provider_name for _ in range(14)]

    assert "".join(turns) == "aabacaaaabacaa"


def test_failing_over_takes_no_turn_from_others_under_weighted(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, "weighted", "", "")
    router = Router()

    turns = []
    for _ in range(4):
        turns.append(candidates(configuration, router=router)[0].target.provider_name)
        candidates(configuration, router=router, exclude={f"{turns[-1]}/m"})

    assert turns == ["a", "b", "a", "b"]


def test_the_cheapest_is_asked_first_and_an_unknown_price_last(tmp_path: Path) -> None:
    def priced(price_in: float, price_out: float) -> str:
        return f"input_usd_per_million_tokens = {price_in}\noutput_usd_per_million_tokens = {price_out}"

    configuration = loaded(tmp_path, "cheapest", "", priced(1, 10), priced(5, 1), priced(6, 6))

    short_answer = candidates(configuration, tokens_in=1000, tokens_out=10)
    long_answer = candidates(configuration, tokens_in=10, tokens_out=1000)

    assert [one.target.provider_name for one in short_answer] == ["b", "c", "d", "a"]
    assert [one.target.provider_name for one in long_answer] == ["c", "d", "b", "a"]
    assert short_answer[0].score == pytest.approx(0.0011)
    assert short_answer[-1].reason == "price unknown"


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("calls_per_second", [5, 50])
def test_fastest_leaves_a_provider_that_turned_slow_and_returns_when_it_healed(
    tmp_path: Path, calls_per_second: float, *, streams: bool
) -> None:
    jitter = Random(3)
    simulation = Simulation(loaded(tmp_path, "fastest", "", ""), calls_per_second=calls_per_second)
    simulation.streams = streams
    healthy = lambda: 0.3 * jitter.uniform(0.8, 1.2)  # noqa: E731  # read beside the slow one
    slow = lambda: 3.0 * jitter.uniform(0.8, 1.2)  # noqa: E731  # as above
    simulation.seconds = {"a": healthy, "b": healthy}
    before = simulation.run(30)

    simulation.seconds["a"] = slow
    simulation.run(2)
    while_slow = simulation.run(20)
    simulation.seconds["a"] = healthy
    simulation.run(30)
    healed = simulation.run(30)

    assert share(before, "a") > 0.3
    assert share(while_slow, "a") < 0.15
    assert share(healed, "a") > 0.3


def test_little_traffic_is_not_spent_on_asking_a_slow_provider_again(tmp_path: Path) -> None:
    simulation = Simulation(loaded(tmp_path, "fastest", "", ""), calls_per_second=1 / 60)
    simulation.seconds = {"a": lambda: 0.3, "b": lambda: 6.0}

    counted = simulation.run(60 * 200)

    assert share(counted, "b") < 0.08


def test_a_provider_without_history_is_tried_but_not_flooded(tmp_path: Path) -> None:
    simulation = Simulation(loaded(tmp_path, "fastest", "", ""), calls_per_second=50)
    simulation.seconds = {"a": lambda: 0.2, "b": lambda: 30.0}

    counted = simulation.run(5)

    assert 1 <= counted["b"] <= 0.15 * counted.total()


def test_long_answers_do_not_look_like_a_slow_provider(tmp_path: Path) -> None:
    now = 0.0
    configuration = loaded(tmp_path, "fastest", "", "")
    router = Router(clock=lambda: now, random=Random(1))
    long_answer, short_answer = (router.begin(target) for target in configuration.targets)
    now = 0.1
    long_answer.first_token()
    now = 0.2
    short_answer.first_token()
    now = 2.2
    short_answer.end(50, ok=True)
    now = 10.1
    long_answer.end(1000, ok=True)

    assert candidates(configuration, router=router)[0].target.provider_name == "a"


def test_quick_failures_do_not_look_like_speed(tmp_path: Path) -> None:
    now = 0.0
    configuration = loaded(tmp_path, "fastest", "", "")
    router = Router(clock=lambda: now, random=Random(1))
    for target, seconds in zip(configuration.targets, (1.0, 2.0), strict=True):
        call = router.begin(target)
        now += seconds
        call.end(100, ok=True)
    for _ in range(20):
        call = router.begin(configuration.targets[1])
        now += 0.001
        call.end(None, ok=False)

    assert candidates(configuration, router=router)[0].target.provider_name == "a"


def test_balanced_weighs_latency_against_price(tmp_path: Path) -> None:
    def priced(price: float) -> str:
        return f"input_usd_per_million_tokens = {price}\noutput_usd_per_million_tokens = {price}"

    now = 0.0
    configuration = loaded(tmp_path, "balanced", priced(10), priced(1), priced(8))
    router = Router(clock=lambda: now, random=Random(1))
    for target, seconds in zip(configuration.targets, (1.0, 1.5, 10.0), strict=True):
        call = router.begin(target)
        now += seconds
        call.end(1000, ok=True)

    ordered = candidates(configuration, router=router)

    assert [one.target.provider_name for one in ordered] == ["b", "a", "c"]
    assert "s expected" in ordered[0].reason
    assert "USD" in ordered[0].reason


def test_balanced_avoids_the_fuller_of_equals(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, "balanced", "", "")
    router = Router(random=Random(1))
    for _ in range(3):
        router.begin(configuration.targets[0])

    assert candidates(configuration, router=router)[0].target.provider_name == "b"
