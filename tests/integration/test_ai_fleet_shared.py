"""What holds between workers, and what becomes of it while Redis is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from contracts.errors import ErrorCode, Permanent, Transient
from ops.stack.session import Session
from workers.ai.configuration import Model, Provider, Target
from workers.ai.limits import Failed, Fleet, Pass, Served, Unused, Wait, open_fleet
from workers.ai.limits.link import ROOT

SERVED = Served(tokens=None, seconds=0.1)


@pytest.fixture
async def fleets(services: Session) -> AsyncIterator[list[Fleet]]:
    """Three workers' views of the same gates."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_fleet(services.addresses.redis_by_role["worker"])) for _ in range(3)
        ]


def target(**limits: Any) -> Target:
    table = Provider(dialect="openai", base_url="http://127.0.0.1:1/v1", models={"m": Model()}, **limits)
    return Target(f"p{uuid4().hex[:12]}", table, "m", table.models["m"], None)


async def enter(fleet: Fleet, only: Target, **rest: Any) -> Pass | Wait:
    return await fleet.enter(
        [only], **{"tokens": 10, "batch": False, "wait_seconds": 0, "command_id": uuid4().hex, **rest}
    )


async def granted(fleet: Fleet, only: Target, **rest: Any) -> Pass:
    answer = await enter(fleet, only, **rest)
    assert isinstance(answer, Pass), answer
    return answer


async def until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not met():  # noqa: ASYNC110  # the condition is in another task's hands
            await asyncio.sleep(0.02)


def unavailable() -> Failed:
    return Failed(Transient(ErrorCode.PROVIDER_UNAVAILABLE, "as a test says", details={"scope": "provider"}))


def times(event: str, lines: Sequence[Mapping[str, Any]]) -> int:
    return sum(line["event"] == event for line in lines)


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_workers_share_limits_and_wake_each_other(fleets: list[Fleet]) -> None:
    narrow = target(max_in_flight=1)
    held = await granted(fleets[0], narrow)

    async with asyncio.TaskGroup() as group:
        other = group.create_task(granted(fleets[1], narrow, wait_seconds=60))
        await asyncio.sleep(0.2)
        assert not other.done()
        await held.leave(SERVED)

    assert other.result().target == narrow


async def test_interactive_calls_of_one_worker_go_before_batch_calls_of_another(fleets: list[Fleet]) -> None:
    narrow = target(max_in_flight=1)
    order: list[str] = []

    async def go(fleet: Fleet, *, batch: bool) -> None:
        passed = await granted(fleet, narrow, batch=batch, wait_seconds=60)
        order.append("batch" if batch else "interactive")
        await asyncio.sleep(0.02)
        await passed.leave(SERVED)

    held = await granted(fleets[0], narrow)
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(go(fleets[1], batch=True))
        await asyncio.sleep(0.2)
        for _ in range(5):
            group.create_task(go(fleets[2], batch=False))
        await asyncio.sleep(0.2)
        await held.leave(SERVED)

    assert order == ["interactive"] * 5 + ["batch"] * 5


async def test_an_outage_that_one_worker_saw_holds_back_all_of_them(fleets: list[Fleet]) -> None:
    only = target()
    for fleet in fleets:
        await (await granted(fleet, only)).leave(unavailable())

    await until_shut(fleets, only)
    probes = [answer for fleet in fleets if isinstance(answer := await enter(fleet, only, wait_seconds=5), Pass)]

    assert [probe.probe for probe in probes] == [True]


async def until_shut(fleets: list[Fleet], only: Target) -> None:
    """The third failure has reached Redis."""
    async with asyncio.timeout(60):
        while isinstance(answer := await enter(fleets[0], only), Pass):
            await answer.leave(Unused())


async def test_calls_refusals_and_breakers_are_counted(fleets: list[Fleet]) -> None:
    only = target(max_in_flight=1)
    await (await granted(fleets[0], only)).leave(SERVED)
    held = await granted(fleets[0], only)
    await enter(fleets[0], only)
    error = Permanent(ErrorCode.MODEL_NOT_FOUND, "as a test says", details={"scope": "model"})
    with capture_logs() as lines:
        await held.leave(Failed(error))
        await until(lambda: sample("ish_ai_breaker_state", scope=f"model:{only.name}") == 2)

    assert sample("ish_ai_calls_total", target=only.name, outcome="ok") == 1
    assert sample("ish_ai_calls_total", target=only.name, outcome="model_not_found") == 1
    assert sample("ish_ai_deferrals_total", target=only.name, reason="in_flight") == 1
    events = [(line["event"], line["log_level"]) for line in lines]
    assert events == [("provider_unusable", "error"), ("breaker_opened", "warning")]


async def test_a_redis_that_does_not_answer_delays_a_call_once_and_is_used_again_afterwards(
    fleets: list[Fleet], services: Session
) -> None:
    narrow = target(max_in_flight=2)
    held = [await granted(fleets[0], narrow)]
    with capture_logs() as lines:
        services.redis.freeze()
        try:
            # what this worker has in flight already counts; other workers' calls cannot
            held.append(await granted(fleets[0], narrow))
            refused = await enter(fleets[0], narrow)
            assert isinstance(refused, Wait)
            held.append(await granted(fleets[1], narrow))
        finally:
            services.redis.thaw()
        # those that asked meanwhile, and whoever had something to renew
        await until(lambda: times("redis_reachable", lines) == times("redis_unreachable", lines) >= 2)

    # and what was let out meanwhile is known to all
    assert isinstance(await enter(fleets[2], narrow), Wait)
    for passed in held:
        await passed.leave(SERVED)
    await granted(fleets[2], narrow, wait_seconds=60)
    assert len(lines) <= 6


async def test_a_redis_that_is_not_there_at_the_start_delays_nothing_but_is_told() -> None:
    with capture_logs() as lines:
        async with open_fleet("redis://127.0.0.1:1/0") as fleet:
            narrow = target(max_in_flight=1)
            await granted(fleet, narrow)
            assert isinstance(await enter(fleet, narrow), Wait)

    assert [line["event"] for line in lines] == ["redis_unreachable"]


async def test_grants_of_this_minute_are_told_to_a_redis_that_lost_them(fleets: list[Fleet], services: Session) -> None:
    limited = target(requests_per_minute=3, tokens_per_minute=1000)
    for fleet in fleets:
        await (await granted(fleet, limited)).leave(SERVED)
    services.redis.stop()
    services.redis.start()

    async with asyncio.timeout(60), redis.asyncio.Redis.from_url(services.redis_url) as client:
        while await client.zcard(f"{ROOT}:provider:{limited.provider_name}:requests") < 3:  # noqa: ASYNC110  # as it says
            await asyncio.sleep(0.05)

    answer = await enter(fleets[0], limited)
    assert isinstance(answer, Wait)
    assert answer.reason == "requests_per_minute"


async def test_a_grant_that_was_heard_of_late_counts_from_then(fleets: list[Fleet], services: Session) -> None:
    limited = target(requests_per_minute=3, tokens_per_minute=1000)
    root = f"{ROOT}:provider:{limited.provider_name}"

    with redis.Redis.from_url(services.redis_url) as blocking:

        def times_of(log: str) -> list[int]:
            listed: Any = blocking.zrange(f"{root}:{log}", 0, -1, withscores=True)  # its type says nothing
            return [int(at) for _, at in listed]

        entering = asyncio.create_task(granted(fleets[0], limited))
        async with asyncio.timeout(60):
            while not (granted_at := times_of("tokens")):  # noqa: ASYNC110  # the condition is in Redis
                await asyncio.sleep(0)
            time.sleep(0.4)  # noqa: ASYNC251  # as a process that is not scheduled when the answer comes
            passed = await entering
            for log in ("requests", "tokens"):
                while (counted_at := times_of(log)) == granted_at:  # noqa: ASYNC110  # the same
                    await asyncio.sleep(0.01)
                assert counted_at[0] - granted_at[0] >= 400
        assert blocking.get(f"{root}:sum") == b"10"
        await passed.leave(SERVED)
