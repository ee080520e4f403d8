"""The gates' rules, which are the same in Redis and, without it, within one process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from contracts.errors import CommandError, ErrorCode, Permanent, Transient
from ops.stack.session import Session
from workers.ai.configuration import Model, Provider, Target
from workers.ai.limits import Failed, Fleet, Pass, Served, Unknown, Unused, Wait, open_fleet

WINDOW_SECONDS = 3.0
MARGIN_SECONDS = 0.5
SERVED = Served(tokens=None, seconds=0.1)


@pytest.fixture(params=["shared", "local"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "local":
        return ""
    services: Session = request.getfixturevalue("services")
    return services.addresses.redis_by_role["worker"]


@pytest.fixture
async def fleet(url: str) -> AsyncIterator[Fleet]:
    async with open_fleet(url, window_seconds=WINDOW_SECONDS) as opened:
        yield opened


def target(*, provider: str | None = None, key: str | None = None, model: Model | None = None, **limits: Any) -> Target:
    """A target of a provider that no other test uses."""
    name = provider or f"p{uuid4().hex[:12]}"
    table = Provider(dialect="openai", base_url="http://127.0.0.1:1/v1", models={"m": model or Model()}, **limits)
    return Target(name, table, "m", table.models["m"], SecretStr(key) if key is not None else None)


async def enter(fleet: Fleet, *targets: Target, **rest: Any) -> Pass | Wait:
    command_id = rest.pop("command_id", None) or uuid4().hex
    return await fleet.enter(
        targets, **{"tokens": 10, "batch": False, "wait_seconds": 0, **rest}, command_id=command_id
    )


async def granted(fleet: Fleet, *targets: Target, **rest: Any) -> Pass:
    answer = await enter(fleet, *targets, **rest)
    assert isinstance(answer, Pass), answer
    return answer


async def refused(fleet: Fleet, *targets: Target, **rest: Any) -> Wait:
    answer = await enter(fleet, *targets, **rest)
    assert isinstance(answer, Wait), answer
    return answer


def failure(scope: str, *, code: ErrorCode = ErrorCode.PROVIDER_UNAVAILABLE, **details: Any) -> Failed:
    kind: type[CommandError] = Permanent if code is ErrorCode.PROVIDER_AUTHENTICATION else Transient
    return Failed(kind(code, "as a test says", details={"scope": scope, **details}))


async def fail_out(fleet: Fleet, *targets: Target, commands: int = 3) -> None:
    """Let calls of so many different commands fail."""
    for _ in range(commands):
        await (await granted(fleet, *targets)).leave(failure("provider"))


async def until(met: Callable[[], Awaitable[Any]], *, seconds: float = 60) -> Any:
    async with asyncio.timeout(seconds):
        while not (answer := await met()):  # noqa: ASYNC110  # the condition is in Redis
            await asyncio.sleep(0.02)
        return answer


@asynccontextmanager
async def waiting(work: Any) -> AsyncIterator["asyncio.Task[Any]"]:
    """Runs something beside the block, long enough to be waiting when the block begins."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        await asyncio.sleep(0.1)
        yield task


async def test_a_full_target_lets_the_next_call_in_when_one_is_over(fleet: Fleet) -> None:
    narrow = target(max_in_flight=2, key="k")
    first, _ = [await granted(fleet, narrow) for _ in range(2)]

    async with waiting(granted(fleet, narrow, wait_seconds=30)) as third:
        assert not third.done()
        await first.leave(SERVED)

    assert third.result().target == narrow


async def test_without_room_in_time_the_call_is_told_when_to_come_back(fleet: Fleet) -> None:
    narrow = target(max_in_flight=1)
    await granted(fleet, narrow)

    wait = await refused(fleet, narrow, wait_seconds=0.1)

    assert (wait.reason, wait.target, wait.dead) == ("in_flight", narrow.name, False)
    assert wait.seconds >= 0.2


async def test_a_full_target_gives_way_to_the_next_candidate(fleet: Fleet) -> None:
    first, second = target(max_in_flight=1), target()
    await granted(fleet, first)

    assert (await granted(fleet, first, second)).target == second


async def test_a_models_limit_leaves_room_for_the_providers_other_models(fleet: Fleet) -> None:
    narrow = target(model=Model(max_in_flight=1))
    wide = Target(narrow.provider_name, narrow.provider, "other", Model(), None)
    await granted(fleet, narrow)

    assert (await refused(fleet, narrow)).reason == "in_flight"
    assert (await granted(fleet, wide)).target == wide


async def test_two_tables_with_one_key_share_its_limits(fleet: Fleet) -> None:
    key = uuid4().hex
    first, second = target(key=key, max_in_flight=1), target(key=key, max_in_flight=1)
    await granted(fleet, first)

    assert (await refused(fleet, second)).reason == "in_flight"
    await granted(fleet, target(key=uuid4().hex, max_in_flight=1))


async def test_interactive_calls_go_before_batch_calls_and_each_in_turn(fleet: Fleet) -> None:
    narrow = target(max_in_flight=1)
    held = await granted(fleet, narrow)
    order: list[str] = []

    async def go(name: str, *, batch: bool) -> None:
        passed = await granted(fleet, narrow, batch=batch, wait_seconds=60)
        order.append(name)
        await passed.leave(SERVED)

    async with asyncio.TaskGroup() as group:
        for name in ("batch 1", "batch 2", "interactive 1", "interactive 2"):
            group.create_task(go(name, batch=name.startswith("batch")))
            await asyncio.sleep(0.02)
        await held.leave(SERVED)

    assert order == ["interactive 1", "interactive 2", "batch 1", "batch 2"]


async def test_calls_that_stop_waiting_take_no_room_with_them(fleet: Fleet) -> None:
    narrow = target(max_in_flight=5)
    for pause in (0, 0, 0, 0.001, 0.002, 0.003, 0.005, 0.01):
        held = [await granted(fleet, narrow, wait_seconds=30) for _ in range(5)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(enter(fleet, narrow, wait_seconds=30)) for _ in range(10)]
            await asyncio.sleep(pause)
            for passed in held:
                await passed.leave(SERVED)
            await asyncio.sleep(pause)
            for task in tasks:
                task.cancel()
        for task in tasks:
            if not task.cancelled():
                answer = task.result()
                assert isinstance(answer, Pass)
                await answer.leave(SERVED)

    for _ in range(5):
        await granted(fleet, narrow, wait_seconds=30)


async def test_requests_never_exceed_their_limit_in_any_window(fleet: Fleet) -> None:
    limited = target(requests_per_minute=10, key=uuid4().hex)
    at: list[float] = []

    async def go() -> None:
        passed = await granted(fleet, limited, wait_seconds=60)
        at.append(monotonic())
        await passed.leave(SERVED)

    async with asyncio.TaskGroup() as group:
        for _ in range(25):
            group.create_task(go())

    at.sort()
    assert all(later - earlier >= WINDOW_SECONDS for earlier, later in zip(at, at[10:], strict=False))


async def test_returns_for_requests_are_planned_for_when_they_are_free(fleet: Fleet) -> None:
    limited = target(requests_per_minute=2)
    for _ in range(2):
        await (await granted(fleet, limited)).leave(SERVED)

    waits = [await refused(fleet, limited) for _ in range(6)]

    assert {wait.reason for wait in waits} == {"requests_per_minute"}
    # two for each window; earlier by what wait queues cannot keep, and by a second to wait here
    full = WINDOW_SECONDS + MARGIN_SECONDS
    for place, wait in enumerate(waits):
        due = full * (1 + place // 2)
        assert due - 3.6 <= wait.seconds <= due


async def test_a_command_that_comes_back_keeps_its_place(fleet: Fleet) -> None:
    limited = target(requests_per_minute=1)
    await (await granted(fleet, limited)).leave(SERVED)
    first = await refused(fleet, limited, command_id="early")
    for _ in range(5):
        await refused(fleet, limited)

    again = await refused(fleet, limited, command_id="early")

    assert again.seconds <= first.seconds


async def test_tokens_are_reserved_and_settled_to_what_was_used(fleet: Fleet) -> None:
    limited = target(tokens_per_minute=100)
    first = await granted(fleet, limited, tokens=80)

    assert (await refused(fleet, limited, tokens=30)).reason == "tokens_per_minute"
    await first.leave(Served(tokens=60, seconds=0.1))
    await (await granted(fleet, limited, tokens=30)).leave(Served(tokens=40, seconds=0.1))
    assert (await refused(fleet, limited, tokens=1)).reason == "tokens_per_minute"


async def test_tokens_of_a_call_that_failed_are_given_back_unless_it_had_begun(fleet: Fleet) -> None:
    limited = target(tokens_per_minute=100)
    await (await granted(fleet, limited, tokens=80)).leave(failure("request"))
    await (await granted(fleet, limited, tokens=80)).leave(failure("request", begun=True))

    assert (await refused(fleet, limited, tokens=80)).reason == "tokens_per_minute"


async def test_a_call_larger_than_the_limit_of_tokens_goes_when_it_has_them_all(fleet: Fleet) -> None:
    limited = target(tokens_per_minute=100)

    await granted(fleet, limited, tokens=5000)
    assert (await refused(fleet, limited, tokens=1)).reason == "tokens_per_minute"
    await granted(fleet, limited, tokens=1, wait_seconds=60)


async def test_a_pass_that_was_not_used_counts_as_no_request(fleet: Fleet) -> None:
    limited = target(requests_per_minute=1, tokens_per_minute=10)
    await (await granted(fleet, limited)).leave(Unused())

    await granted(fleet, limited)


async def test_a_call_given_up_counts_a_little_longer(fleet: Fleet) -> None:
    narrow = target(max_in_flight=1)
    await (await granted(fleet, narrow)).leave(Unknown())

    assert (await refused(fleet, narrow)).reason == "in_flight"
    await granted(fleet, narrow, wait_seconds=30)


async def test_an_outage_holds_back_every_call_but_one_probe_and_ends_with_its_success(fleet: Fleet) -> None:
    only = target()
    await fail_out(fleet, only)
    wait = await refused(fleet, only)
    assert wait.reason == "open"

    answers = await until(lambda: probes_among(fleet, only, calls=5))

    probe = next(answer for answer in answers if isinstance(answer, Pass))
    assert probe.probe
    assert sum(isinstance(answer, Pass) for answer in answers) == 1
    await probe.leave(SERVED)
    assert not (await granted(fleet, only, wait_seconds=30)).probe


async def probes_among(fleet: Fleet, only: Target, *, calls: int) -> list[Pass | Wait] | None:
    """The answers of as many calls, once one of them got a pass."""
    answers = await asyncio.gather(*(enter(fleet, only) for _ in range(calls)))
    return answers if any(isinstance(answer, Pass) for answer in answers) else None


async def test_a_failed_probe_doubles_the_pause(fleet: Fleet) -> None:
    only = target()
    await fail_out(fleet, only)
    probe = await granted(fleet, only, wait_seconds=30)
    failed_at = monotonic()
    await probe.leave(failure("provider"))

    assert (await granted(fleet, only, wait_seconds=60)).probe
    assert monotonic() - failed_at >= 3.9


async def test_after_an_outage_calls_are_let_out_little_by_little(fleet: Fleet) -> None:
    only = target()
    await fail_out(fleet, only)
    await (await granted(fleet, only, wait_seconds=30)).leave(SERVED)

    first = [answer for answer in [await enter(fleet, only) for _ in range(10)] if isinstance(answer, Pass)]
    for passed in first:
        await passed.leave(SERVED)
    second = [answer for answer in [await enter(fleet, only) for _ in range(10)] if isinstance(answer, Pass)]

    assert len(first) == 2
    assert len(second) == 4
    assert (await refused(fleet, only)).reason == "recovering"


async def test_one_command_alone_makes_no_outage(fleet: Fleet) -> None:
    only = target()
    for _ in range(6):
        await (await granted(fleet, only, command_id="poison")).leave(failure("provider"))

    await granted(fleet, only)


async def test_a_success_between_failures_is_no_outage(fleet: Fleet) -> None:
    only = target()
    for _ in range(2):
        await fail_out(fleet, only, commands=2)
        await (await granted(fleet, only)).leave(SERVED)

    await granted(fleet, only)


async def test_what_fails_too_often_is_passed_over_but_better_than_nothing(fleet: Fleet) -> None:
    shaky, sound = target(), target()
    for place in range(20):
        await (await granted(fleet, shaky)).leave(SERVED if place % 4 != 3 else failure("provider"))

    assert (await granted(fleet, shaky, sound)).target == sound
    assert (await granted(fleet, shaky)).target == shaky


async def test_a_models_outage_leaves_the_providers_other_models_alone(fleet: Fleet) -> None:
    broken = target()
    other = Target(broken.provider_name, broken.provider, "other", Model(), None)
    for _ in range(3):
        await (await granted(fleet, broken)).leave(failure("model"))

    assert (await refused(fleet, broken)).reason == "open"
    await granted(fleet, other)


async def test_errors_about_the_request_say_nothing_about_the_provider(fleet: Fleet) -> None:
    only = target()
    for _ in range(10):
        await (await granted(fleet, only)).leave(failure("request", code=ErrorCode.PROVIDER_REJECTED))

    await granted(fleet, only)


async def test_a_dead_key_is_left_alone_at_once_and_another_key_is_not(fleet: Fleet) -> None:
    name = f"p{uuid4().hex[:12]}"
    old, new = target(provider=name, key=uuid4().hex), target(provider=name, key=uuid4().hex)
    await (await granted(fleet, old)).leave(failure("key", code=ErrorCode.PROVIDER_AUTHENTICATION, dead=True))

    wait = await refused(fleet, old)

    assert (wait.reason, wait.dead) == ("open", True)
    assert wait.seconds > 240
    await granted(fleet, new)


async def test_a_model_that_is_not_there_is_left_alone_until_a_person_acts(fleet: Fleet) -> None:
    only = target()
    missing = Failed(Permanent(ErrorCode.MODEL_NOT_FOUND, "as a test says", details={"scope": "model"}))
    await (await granted(fleet, only)).leave(missing)

    assert (await refused(fleet, only)).dead


async def test_the_latest_known_end_of_a_cooldown_holds(fleet: Fleet) -> None:
    only = target(key=uuid4().hex)
    limited = ErrorCode.PROVIDER_RATE_LIMITED
    first, second = await granted(fleet, only), await granted(fleet, only)
    await first.leave(failure("key", code=limited, cooldown_seconds=100))
    await second.leave(failure("key", code=limited, cooldown_seconds=5))

    wait = await refused(fleet, only, only)

    assert wait.reason == "cooldown"
    assert 90 < wait.seconds <= 100


async def test_the_last_candidate_is_tried_now_and_then_and_an_answer_ends_its_cooldown(fleet: Fleet) -> None:
    only = target(key=uuid4().hex)
    limited = failure("key", code=ErrorCode.PROVIDER_RATE_LIMITED, cooldown_seconds=60)
    await (await granted(fleet, only)).leave(limited)
    assert (await refused(fleet, only)).seconds <= 3  # a twentieth of the wait

    tried = await granted(fleet, only, wait_seconds=30)
    assert (await refused(fleet, only)).reason == "cooldown"
    await tried.leave(SERVED)

    await (await granted(fleet, only)).leave(SERVED)


async def test_a_rate_limit_without_a_time_pauses_longer_each_time_it_comes_again(fleet: Fleet) -> None:
    only = target(key=uuid4().hex)
    paused: list[float] = []
    for _ in range(2):
        passed = await granted(fleet, only, wait_seconds=30)
        limited_at = monotonic()
        await passed.leave(failure("key", code=ErrorCode.PROVIDER_RATE_LIMITED))
        passed = await granted(fleet, only, only, wait_seconds=30)
        paused.append(monotonic() - limited_at)
        await passed.leave(Unused())

    assert 0.9 <= paused[0] < 1.9 <= paused[1]


async def test_limited_calls_of_one_moment_count_once(fleet: Fleet) -> None:
    only = target(key=uuid4().hex)
    for passed in [await granted(fleet, only) for _ in range(10)]:
        await passed.leave(failure("key", code=ErrorCode.PROVIDER_RATE_LIMITED))

    assert (await refused(fleet, only)).seconds <= 1


async def test_too_many_at_once_lowers_what_is_allowed_at_once(fleet: Fleet) -> None:
    only = target()
    held = [await granted(fleet, only) for _ in range(10)]
    for passed in held:
        await passed.leave(failure("model", code=ErrorCode.PROVIDER_RATE_LIMITED, shrink=True))

    answers = [await enter(fleet, only) for _ in range(10)]

    assert sum(isinstance(answer, Pass) for answer in answers) == 7
    for passed in (answer for answer in answers if isinstance(answer, Pass)):
        await passed.leave(SERVED)
    for _ in range(3):
        await (await granted(fleet, only)).leave(SERVED)
    assert sum(isinstance(answer, Pass) for answer in [await enter(fleet, only) for _ in range(10)]) == 8


async def test_a_call_in_flight_from_before_the_recovery_does_not_end_it(fleet: Fleet) -> None:
    only = target()
    old = [await granted(fleet, only) for _ in range(3)]
    await fail_out(fleet, only)
    await (await granted(fleet, only, wait_seconds=30)).leave(SERVED)
    for passed in old:
        await passed.leave(failure("provider"))

    await granted(fleet, only)
