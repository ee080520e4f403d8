"""Many commands share one transaction, and one that Postgres refuses fails alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts.amqp.publisher import Publisher
from contracts.commands import KIND_AI
from contracts.errors import Deferred, ErrorCode, Transient
from contracts.topology import AI
from ops.stack.session import Session
from tests.integration.consume_stand import POOLS, all_ended, consuming, published, publishing, rows, said, until
from workers.consume.consumer import Pool
from workers.handler import Command, Outcome, Usage


@pytest.fixture
async def publisher(services: Session) -> AsyncIterator[Publisher]:
    async with publishing(services) as it:
        yield it


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
async def test_at_least_fifty_commands_share_a_transaction_under_load(
    services: Session, publisher: Publisher, pool: Pool
) -> None:
    async def speak(_: Command[Any]) -> Outcome:
        return said("fine")

    name, ids = await published(publisher, pool, 400)
    async with consuming(services, pool, speak):
        await all_ended(services, name, len(ids))

    # xmin is the transaction that wrote a row
    batches = await rows(
        services, "select count(*) as size from commands where publisher = $1 group by xmin::text", name
    )
    assert max(batch["size"] for batch in batches) >= 50


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
async def test_a_row_that_postgres_refuses_fails_alone(services: Session, publisher: Publisher, pool: Pool) -> None:
    name, ids = await published(publisher, pool, 60)
    bad = ids[17]

    async def speak(command: Command[Any]) -> Outcome:
        return said("not \x00 storable" if str(command.id) == bad else "fine")

    async with consuming(services, pool, speak):
        await all_ended(services, name, len(ids))

    states = {
        row["id"]: (row["state"], row["error_code"], row["status"])
        for row in await rows(
            services,
            "select id::text, state, error_code, result::json->>'status' as status from commands where publisher = $1",
            name,
        )
    }
    assert states.pop(bad) == ("failed", "unrepresentable", "failed")
    assert set(states.values()) == {("succeeded", None, "succeeded")}
    lines = await rows(services, "select command_id::text as id from messages where publisher = $1", name)
    assert sorted(line["id"] for line in lines) == sorted(states)
    letters = await rows(services, "select reason, message_id from dead_letters where publisher = $1", name)
    assert letters == [{"reason": "unrepresentable", "message_id": bad}]


async def test_a_deferred_command_comes_again_and_spends_no_attempt(services: Session, publisher: Publisher) -> None:
    seen: list[tuple[int, int]] = []

    async def crowded(command: Command[Any]) -> Outcome:
        seen.append((command.attempt, command.calls))
        if len(seen) <= 3:
            raise Deferred(ErrorCode.NO_CAPACITY, "no room", retry_after_seconds=0.1)
        if len(seen) == 4:
            error = Transient(ErrorCode.PROVIDER_UNAVAILABLE, "failed", retry_after_seconds=0.1)
            error.spent = Usage(target="scripted/steady", calls=2, details={"calls": []})
            raise error
        return Outcome({}, usage=Usage(calls=1))

    pool = POOLS["claimed first"]
    name, _ = await published(publisher, pool, 1)
    async with consuming(services, pool, crowded):
        await all_ended(services, name, 1)

    assert seen == [(1, 0), (1, 0), (1, 0), (1, 0), (2, 2)]
    [row] = await rows(services, "select attempt, calls from commands where publisher = $1", name)
    assert row == {"attempt": 2, "calls": 3}
    attempts = await rows(
        services, "select attempt, outcome, target, details::text from attempts where publisher = $1 order by 1", name
    )
    assert attempts == [
        {"attempt": 1, "outcome": "retrying", "target": "scripted/steady", "details": '{"calls": []}'},
        {"attempt": 2, "outcome": "succeeded", "target": None, "details": None},
    ]


async def test_what_is_held_beyond_the_places_is_claimed_and_not_run_before_its_turn(
    services: Session, publisher: Publisher
) -> None:
    at_once: list[int] = [0]
    released = asyncio.Event()

    async def speak(_: Command[Any]) -> Outcome:
        at_once.append(at_once[-1] + 1)
        await released.wait()
        at_once.append(at_once[-1] - 1)
        return said("fine")

    name, ids = await published(publisher, POOLS["claimed first"], 12)
    async with consuming(services, Pool("ai", AI, frozenset({KIND_AI}), prefetch=6, places=4), speak) as consumer:

        async def all_claimed() -> bool:
            return len(consumer.in_flight()) == 6

        await until(all_claimed)
        await asyncio.sleep(0.2)  # in which a fifth would have begun
        assert at_once[-1] == 4
        released.set()
        await all_ended(services, name, len(ids))

    assert max(at_once) == 4
