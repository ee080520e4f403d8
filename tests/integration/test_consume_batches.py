"""Many commands share one transaction, and one that Postgres refuses fails alone."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from contracts.broker import connect
from contracts.commands import KIND_AI, KIND_RELAY
from contracts.database import open_pool
from contracts.errors import Deferred, ErrorCode, Transient
from contracts.frames import Properties
from contracts.publisher import Outgoing, Publisher
from contracts.settings import read_settings
from contracts.topology import AI, COMMANDS, RELAY
from ops.stack.session import Session
from workers.consume import Consumer, Pool
from workers.handler import Command, Handler, Message, Outcome, Usage
from workers.intake import Intake
from workers.killpoints import KillPoints
from workers.registry import Registration
from workers.settling import Settling

POOLS = {
    "a relay's effect is its transaction": Pool("relay", RELAY, frozenset({KIND_RELAY}), 400, at_once=True),
    "claimed first": Pool("ai", AI, frozenset({KIND_AI}), 400),
}
BODIES = {
    RELAY: {"sender": "user", "message": "hello", "timestamp": "2025-01-01T00:00:00Z"},
    AI: {"prompt": "hello"},
}
ROUTES = {RELAY: ("relay", "relay.v1"), AI: ("ai.send", "ai.send.v1")}


@pytest.fixture
async def publisher(services: Session) -> AsyncIterator[Publisher]:
    await emptied(services)
    async with running(Publisher(services.amqp_url("outbox"), name="test", timeout_seconds=10)) as it:
        yield it


@asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[Publisher]:
    task = asyncio.ensure_future(publisher.run())
    try:
        yield publisher
    finally:
        await cancelled(task)


@asynccontextmanager
async def consuming(services: Session, pool: Pool, handler: Handler) -> AsyncIterator[Consumer]:
    """The real consume path in this process, with a handler of the test's."""
    settings = read_settings(amqp_url=services.amqp_url("worker"), postgres_url=services.postgres_url("ish_worker"))
    database = await open_pool(settings.postgres_url, size=3, name="test")
    registration = Registration(database, pool_name=pool.name, metrics_port=0, lease_seconds=6, heartbeat_seconds=1.5)
    await registration.register()
    kill_points = KillPoints("", "")
    intake = Intake(settings.amqp_url, queue=pool.queue, prefetch=pool.prefetch, in_order=pool.at_once)
    async with running(Publisher(settings.amqp_url, name="test worker", timeout_seconds=10)) as publisher:
        settling = Settling(
            queue=pool.queue, user="worker", publisher=publisher, intake=intake, kill_points=kill_points
        )
        consumer = Consumer(
            pool,
            handler,
            settings=settings,
            database=database,
            intake=intake,
            settling=settling,
            registration=registration,
            kill_points=kill_points,
        )
        tasks = [asyncio.ensure_future(work) for work in (settling.run(), consumer.run(), intake.run())]
        try:
            yield consumer
        finally:
            await intake.stop_consuming()
            for task in reversed(tasks):
                await cancelled(task)
            await database.close()


async def cancelled(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def emptied(services: Session) -> None:
    connection = await connect(services.amqp_url("admin"), name="test")
    async with connection:
        channel = await connection.channel()
        for name in (RELAY, AI):
            await (await channel.get_queue(name, ensure=False)).purge()


async def published(publisher: Publisher, pool: Pool, count: int, **properties: Any) -> tuple[str, list[str]]:
    """Publish commands of a new publisher's, through one of our own roles; returns its name and their ids."""
    name, (key, type_) = f"batch-{token_hex(4)}", ROUTES[pool.queue]
    ids = [str(uuid4()) for _ in range(count)]
    body = json.dumps(BODIES[pool.queue]).encode()
    messages = [
        Outgoing(
            COMMANDS,
            key,
            Properties(
                message_id=id_,
                type=type_,
                user_id="outbox",
                headers={"x-publisher": name, "x-owner": name},
                **properties,
            ),
            body,
        )
        for id_ in ids
    ]
    assert await publisher.publish_all(messages) == [None] * count
    return name, ids


async def rows(services: Session, statement: str, *arguments: object) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(services.postgres_url("ish_ops"))
    try:
        return [dict(row) for row in await connection.fetch(statement, *arguments)]
    finally:
        await connection.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110  # what is waited for happens in PostgreSQL
            await asyncio.sleep(0.05)


async def all_ended(services: Session, publisher: str, count: int) -> None:
    async def ended() -> bool:
        found = await rows(
            services,
            "select 1 from commands where publisher = $1 and state in ('succeeded', 'failed', 'indeterminate')",
            publisher,
        )
        return len(found) == count

    await until(ended)


def said(text: str) -> Outcome:
    line = Message(conversation_id="c", sender="bot", text=text, sent_at=datetime.now(UTC))
    return Outcome({"text": "said"}, messages=(line,))


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
