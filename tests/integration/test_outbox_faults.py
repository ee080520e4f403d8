"""The outbox worker outlives its services: a killed broker, cut connections, deleted queues, PostgreSQL away."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import aiormq
import asyncpg
import pytest

from contracts.broker import BrokerAway, connect
from contracts.topology import DEAD, RELAY, UNROUTED
from ops.management import Management
from ops.stack.session import Session
from tests.integration.outbox_stand import RELAY_BODY, Stand, stand, until


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
