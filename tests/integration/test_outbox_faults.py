"""The outbox worker outlives its services: a killed broker, cut connections, deleted queues, PostgreSQL away."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import aiormq
import asyncpg
import pytest

from contracts.amqp.broker import BrokerAway, connect
from contracts.topology import DEAD, RELAY, UNROUTED
from ops.admin.rabbitmq_management import Management
from ops.stack.session import Session
from tests.integration.outbox_stand import RELAY_BODY, Stand, stand, until
from workers.outbox.schedule import repeat
from workers.outbox.subscription import Subscription


@pytest.fixture
async def bench(services: Session) -> AsyncIterator[Stand]:
    async with stand(services) as one:
        yield one


async def test_subscriptions_come_back_after_the_broker_was_killed(bench: Stand) -> None:
    async with bench.running():
        await until("both consume", lambda: _consumed(bench))
        await asyncio.to_thread(bench.services.broker.kill)
        await asyncio.to_thread(bench.services.broker.start)
        await until("both consume again", lambda: _consumed(bench), seconds=120)
        id_ = await publish_to_dead(bench)

        await until("it is a dead letter", lambda: _is_dead(bench, id_), seconds=120)


async def test_subscriptions_come_back_after_their_connection_was_closed_and_their_queue_deleted(bench: Stand) -> None:
    async with bench.running():
        await until("both consume", lambda: _consumed(bench))
        async with Management(bench.services.management_url) as api:

            async def close() -> bool:
                mine = [one for one in await api.get("connections") if one["user"] == "outbox"]
                for one in mine:
                    await api.delete("connections", one["name"])
                return bool(mine)

            await until("connections were closed", close)
        await bench.delete(DEAD)
        await bench.delete(UNROUTED)
        await until("both consume again", lambda: _consumed(bench), seconds=120)
        id_ = await publish_to_dead(bench)

        await until("it is a dead letter", lambda: _is_dead(bench, id_), seconds=120)


async def test_with_postgres_away_nothing_is_acked_and_all_is_done_when_it_is_back(bench: Stand) -> None:
    async with bench.running():
        await until("both consume", lambda: _consumed(bench))
        await asyncio.to_thread(bench.services.postgres.stop)
        id_ = await publish_to_dead(bench)
        await asyncio.to_thread(bench.services.postgres.start)

        await until("it is a dead letter", lambda: _is_dead(bench, id_), seconds=120)
        await until("the queue is empty", lambda: _is_empty(bench, DEAD))


async def test_an_outbox_worker_starts_while_everything_is_away_and_serves_when_it_is_back(bench: Stand) -> None:
    await bench.make_reply_queue()
    await bench.unsent()
    await asyncio.to_thread(bench.services.broker.stop)
    await asyncio.to_thread(bench.services.postgres.stop)

    async with bench.running():
        await asyncio.to_thread(bench.services.postgres.start)
        await asyncio.to_thread(bench.services.broker.start)

        await until("the reply is there", lambda: _take(bench, bench.reply_to), seconds=120)


@pytest.mark.parametrize(("ready", "consumers"), [(0, 0), (7, 1)], ids=["nobody consumes", "a deaf consumer"])
async def test_a_subscription_that_gets_nothing_starts_over(bench: Stand, ready: int, consumers: int) -> None:
    async with _subscription(bench, asyncio.Event()) as subscription:
        for _ in range(4):
            subscription.looked_at(ready=ready, consumers=consumers)
        subscription.looked_at(ready=0, consumers=1)  # all is well again
        for _ in range(4):
            subscription.looked_at(ready=ready, consumers=consumers)
        assert subscription.starts == 1

        subscription.looked_at(ready=ready, consumers=consumers)

        await until("it starts over", lambda: _is(subscription.starts == 2))


async def test_a_subscription_with_its_hands_full_is_left_alone(bench: Stand) -> None:
    release = asyncio.Event()
    async with _subscription(bench, release) as subscription:
        await publish_to_dead(bench)
        await until("it has what it can hold", lambda: _is(subscription.held == 1))
        for _ in range(20):
            subscription.looked_at(ready=7, consumers=1)
        await asyncio.sleep(0.2)  # in which it would have started over
        assert subscription.starts == 1
        release.set()
        await until("the queue is empty", lambda: _is_empty(bench, DEAD))


@asynccontextmanager
async def _subscription(bench: Stand, release: asyncio.Event) -> AsyncIterator[Subscription]:
    """One message at a time, each kept until released."""

    async def handle(_: object) -> bool:
        await release.wait()
        return True

    subscription = Subscription(bench.services.amqp_url("outbox"), DEAD, prefetch=1, handle=handle)
    task = asyncio.ensure_future(repeat("test", subscription.round, every_seconds=0.1))
    try:
        await until("it consumes", lambda: _is(subscription.starts == 1))
        yield subscription
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _is(what: bool) -> bool:  # noqa: FBT001  # a condition
    return what


async def test_a_worker_is_registered_while_it_runs_and_says_that_it_stops(bench: Stand) -> None:
    async def mine() -> Any:
        return await bench.owner.fetchrow(
            "select * from workers where pool = 'outbox' and pid = $1 order by started_at desc", os.getpid()
        )

    async def alive() -> bool:
        row = await mine()
        return row is not None and row["stopped_at"] is None and row["heartbeat_at"] > row["started_at"]

    async with bench.running(heartbeat_seconds=0.2):
        await until("it beats", alive)

    assert (await mine())["stopped_at"] is not None


async def publish_to_dead(bench: Stand) -> UUID:
    """A dead letter, as if it came from the broker."""
    id_ = uuid4()

    async def sent() -> bool:
        with suppress(BrokerAway, aiormq.AMQPError, TimeoutError, OSError):
            async with await connect(bench.services.amqp_url("admin"), name="test") as connection:
                exchange = await (await connection.channel()).get_exchange(DEAD, ensure=False)
                message = aio_pika.Message(RELAY_BODY, message_id=str(id_), delivery_mode=2)
                await exchange.publish(message, routing_key=RELAY, timeout=5)
                return True
        return False

    await until("a dead letter was published", sent, seconds=120)
    return id_


async def _is_dead(bench: Stand, id_: UUID) -> Any:
    with suppress(asyncpg.PostgresError, OSError):
        return await bench.owner.fetchrow("select 1 from dead_letters where message_id = $1", str(id_))


async def _take(bench: Stand, queue: str) -> Any:
    with suppress(BrokerAway, aiormq.AMQPError, TimeoutError, OSError):
        return await bench.take(queue)


async def _is_empty(bench: Stand, queue: str) -> bool:
    return await bench.depth(queue) == 0


async def _consumed(bench: Stand) -> bool:
    """Whether both side queues have a consumer."""
    with suppress(BrokerAway, aiormq.AMQPError, TimeoutError, OSError):
        async with await connect(bench.services.amqp_url("admin"), name="test") as connection:
            channel = await connection.channel()
            for queue in (DEAD, UNROUTED):
                found = await channel.declare_queue(queue, passive=True)
                if not found.declaration_result.consumer_count:
                    return False
            return True
    return False
