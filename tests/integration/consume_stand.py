"""Runs the real consume path in the test's process, and tells what it leaves on record."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any
from uuid import uuid4

import asyncpg

from contracts.amqp.broker import connect
from contracts.amqp.frames import Properties
from contracts.amqp.publisher import Outgoing, Publisher
from contracts.commands import KIND_AI, KIND_RELAY
from contracts.database import open_pool
from contracts.settings import read_settings
from contracts.topology import AI, COMMANDS, RELAY
from ops.stack.session import Session
from workers.amqp.subscription import Intake
from workers.consume.consumer import Consumer, Pool
from workers.consume.failpoints import KillPoints
from workers.consume.settlement import Settling
from workers.handler import Handler, Message, Outcome
from workers.store.heartbeat import Registration

POOLS = {
    "a relay's effect is its transaction": Pool("relay", RELAY, frozenset({KIND_RELAY}), 400, at_once=True),
    "claimed first": Pool("ai", AI, frozenset({KIND_AI}), 400),
}
BODIES = {
    RELAY: {"sender": "user", "message": "hello", "timestamp": "2025-01-01T00:00:00Z"},
    AI: {"prompt": "hello"},
}
ROUTES = {RELAY: ("relay", "relay.v1"), AI: ("ai.send", "ai.send.v1")}


@asynccontextmanager
async def publishing(services: Session) -> AsyncIterator[Publisher]:
    """An open publisher of one of our own roles, before empty queues."""
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


async def published(
    publisher: Publisher,
    pool: Pool,
    count: int,
    *,
    name: str = "",
    ids: Sequence[str] = (),
    **properties: Any,
) -> tuple[str, list[str]]:
    """Publish commands of a publisher's (a new one's, unless it is named), through one of our own roles.

    Returns:
        Its name and their ids.
    """
    name, (key, type_) = name or f"batch-{token_hex(4)}", ROUTES[pool.queue]
    ids = list(ids) or [str(uuid4()) for _ in range(count)]
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
