"""What was lost is found again: deleted queues, removed bindings, commands whose message is gone."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import aio_pika
import aiormq
import pytest

from contracts.amqp.broker import apply_topology, connect
from contracts.topology import AI, COMMANDS, RELAY, retry_queue
from ops.stack.session import Session
from tests.integration.outbox_stand import RELAY_BODY, Stand, retention, stand, until
from workers.outbox.housekeeping import Housekeeping
from workers.outbox.repair.queue_guard import Guard
from workers.outbox.repair.rescuer import Republish

MINUTE = timedelta(minutes=1)
WAIT_QUEUE = retry_queue(RELAY, "30s")


@pytest.fixture
async def bench(services: Session) -> AsyncIterator[Stand]:
    async with stand(services) as one:
        await apply_topology(services.amqp_url("admin"))
        await one.purge(RELAY, AI)
        # commands of other tests are none of this one's business
        await one.owner.execute("delete from commands where finished_at is null")
        await one.owner.execute("delete from queue_losses")
        yield one


@pytest.fixture
async def guard(bench: Stand) -> AsyncIterator[Guard]:
    one = Guard(bench.services.amqp_url("outbox"), bench.database, queue_max_length=2_000_000, on_look=lambda *_: None)
    yield one
    await one.close()


def republish(bench: Stand, **ready: int) -> Republish:
    return Republish(
        bench.database,
        bench.publisher,
        user="outbox",
        lease_seconds=6,
        ready=lambda: {f"ish.{k}": v for k, v in ready.items()},
    )


async def ids_in(bench: Stand, queue: str) -> Counter[str]:
    async with await connect(bench.services.amqp_url("admin"), name="test") as connection:
        source = await (await connection.channel()).get_queue(queue, ensure=False)
        found: Counter[str] = Counter()
        while (message := await source.get(fail=False, no_ack=True)) is not None:
            found[str(message.message_id)] += 1
        return found


async def exists(bench: Stand, queue: str) -> bool:
    try:
        await bench.depth(queue)
    except aiormq.ChannelNotFoundEntity:
        return False
    return True


async def test_a_deleted_work_queue_comes_back_and_with_it_the_commands_recorded_for_it(
    bench: Stand, guard: Guard
) -> None:
    queued = [await bench.command("queued", accepted=-MINUTE) for _ in range(600)]
    due_again = await bench.command("retrying", attempt=1, accepted=-MINUTE, retry=-MINUTE)
    still_waiting = await bench.command("retrying", attempt=1, accepted=-MINUTE, retry=MINUTE)
    other_pool = await bench.command("queued", kind="ai.send", accepted=-MINUTE)
    running = await bench.command("running", attempt=1, holder=uuid4(), accepted=-MINUTE)
    await bench.delete(RELAY)

    await guard.round()
    await republish(bench).lost_queues()

    found = await ids_in(bench, RELAY)
    assert found == Counter(str(id_) for id_ in [*queued, due_again])
    assert not {str(id_) for id_ in (still_waiting, other_pool, running)} & set(found)


async def test_a_deleted_wait_queue_comes_back_and_what_waited_in_it_is_told_when_it_is_due(
    bench: Stand, guard: Guard
) -> None:
    waiting = await bench.command("retrying", attempt=2, accepted=-MINUTE, retry=MINUTE)
    await bench.command("queued", accepted=-MINUTE)
    await bench.delete(WAIT_QUEUE)

    await guard.round()
    await republish(bench).lost_queues()

    message = await bench.take(RELAY)
    assert message is not None
    assert message.message_id == str(waiting)
    assert message.headers["x-attempt"] == 3
    due_ms = (await bench.row(waiting))["retry_at"].timestamp() * 1000
    assert message.headers["x-not-before-ms"] == int(due_ms)
    assert await bench.take(RELAY) is None


async def test_a_loss_is_gone_through_once_more_for_what_was_recorded_late(bench: Stand, guard: Guard) -> None:
    await bench.delete(RELAY)
    await guard.round()
    job = republish(bench)
    await job.lost_queues()
    late = await bench.command("queued", accepted=-MINUTE)

    await job.lost_queues()
    assert await bench.take(RELAY) is None
    await bench.owner.execute("update queue_losses set noticed_at = noticed_at - interval '2 minutes'")
    await bench.owner.execute(
        "update commands set accepted_at = accepted_at - interval '5 minutes' where id = $1", late
    )
    await job.lost_queues()

    assert await ids_in(bench, RELAY) == Counter([str(late)])
    assert await bench.owner.fetchval("select count(*) from queue_losses where handled_at is null") == 0


async def test_a_queue_that_is_deleted_twice_in_a_row_brings_back_both_times_commands(
    bench: Stand, guard: Guard
) -> None:
    job = republish(bench)
    first = await bench.command("queued", accepted=-MINUTE)
    await bench.delete(RELAY)
    await guard.round()
    await job.lost_queues()
    second = await bench.command("queued")
    await bench.delete(RELAY)

    await guard.round()
    await job.lost_queues()

    assert await ids_in(bench, RELAY) == Counter([str(first), str(second)])


async def test_a_missing_queue_is_noted_once_however_many_outbox_workers_see_it(bench: Stand) -> None:
    await bench.delete(RELAY)
    guards = [
        Guard(bench.services.amqp_url("outbox"), bench.database, queue_max_length=2_000_000, on_look=lambda *_: None)
        for _ in range(3)
    ]

    for one in guards:
        await one.round()
        await one.close()

    assert await bench.owner.fetchval("select count(*) from queue_losses") == 1
    assert await exists(bench, RELAY)


async def test_a_retry_that_never_came_back_is_published_again_with_growing_waits(bench: Stand) -> None:
    lost = await bench.command("retrying", attempt=1, accepted=-2 * MINUTE, retry=timedelta(seconds=-40))
    await bench.command("retrying", attempt=1, retry=timedelta(seconds=-5))
    job = republish(bench)

    await asyncio.gather(job.overdue(), republish(bench).overdue())
    assert await ids_in(bench, RELAY) == Counter([str(lost)])

    # 15 s at first, then 60 s, then 240 s
    await job.overdue()
    assert await ids_in(bench, RELAY) == Counter()
    await bench.owner.execute("update commands set retry_at = retry_at - interval '40 seconds' where id = $1", lost)
    await job.overdue()
    await job.overdue()
    assert await ids_in(bench, RELAY) == Counter([str(lost)])
    assert (await bench.row(lost))["republished"] == 2


async def test_a_command_whose_worker_died_long_ago_is_published_again(bench: Stand) -> None:
    dead = await bench.worker(silent_for=MINUTE)
    living = await bench.worker(silent_for=timedelta(seconds=-60))
    just_dead = await bench.worker(silent_for=timedelta(seconds=8))
    orphan = await bench.command("running", attempt=1, holder=dead, accepted=-5 * MINUTE)
    unknown = await bench.command("running", attempt=1, holder=uuid4(), accepted=-MINUTE)
    await bench.command("running", attempt=1, holder=living, accepted=-5 * MINUTE)
    await bench.command("running", attempt=1, holder=just_dead, accepted=-5 * MINUTE)

    await republish(bench).orphaned()

    assert await ids_in(bench, RELAY) == Counter([str(orphan), str(unknown)])


async def test_a_queued_command_is_published_again_when_its_queue_has_long_been_empty(bench: Stand) -> None:
    forgotten = await bench.command("queued", accepted=-2 * MINUTE)
    await bench.command("queued", accepted=timedelta(seconds=-5))
    await bench.command("queued", kind="ai.send", accepted=-2 * MINUTE)

    await republish(bench, relay=0, ai=7).forgotten()
    await republish(bench, relay=7).forgotten()

    assert await ids_in(bench, RELAY) == Counter([str(forgotten)])
    assert await ids_in(bench, AI) == Counter()


async def test_the_guard_knows_how_many_messages_wait(bench: Stand, guard: Guard) -> None:
    await publish_relays(bench, 3)

    await guard.round()

    assert guard.ready[RELAY] == 3


async def test_a_removed_binding_is_made_again_for_what_was_unrouted(bench: Stand) -> None:
    async with await connect(bench.services.amqp_url("admin"), name="test") as connection:
        channel = await connection.channel()
        await (await channel.get_queue(RELAY, ensure=False)).unbind(COMMANDS, routing_key="relay")
    (id_,) = await publish_relays(bench, 1)

    async with bench.running():
        message = await until("it is in its queue", lambda: bench.take(RELAY))

    assert message.message_id == str(id_)


async def test_housekeeping_prunes_what_is_past_the_retention_and_makes_partitions_ahead(bench: Stand) -> None:
    kept = await bench.command("queued")
    long_dead = await bench.worker(silent_for=timedelta(days=2))
    resting = await bench.worker(silent_for=timedelta(hours=2))
    await bench.owner.execute(
        "insert into command_keys values ($1, gen_random_uuid(), 'x', current_date - 60)", bench.name
    )
    await bench.owner.execute(
        "insert into dead_letters (at, reason, message, publisher, queue, body) "
        "values (now() - interval '40 days', 'poison', 'm', $1, 'q', ''), (now(), 'poison', 'm', $1, 'q', '')",
        bench.name,
    )
    newest = await bench.owner.fetchval(
        "select max(inhrelid::regclass::text) from pg_inherits where inhparent = 'commands'::regclass"
    )
    await bench.owner.execute(f"drop table {newest}")

    old, young = [f"{number:064x}" for number in (1, 2)]
    await bench.owner.execute(
        "insert into artifacts values ($1, 'image/png', 1, 'x', now() - interval '8 days'), ($2, 'image/png', 1, 'y', now())",
        old,
        young,
    )
    await bench.owner.execute(
        "insert into artifact_owners select sha256, 'o', $1, gen_random_uuid() from artifacts where sha256 = any ($2)",
        bench.name,
        [old, young],
    )

    await Housekeeping(bench.database, retention(commands=30, artifacts=7)).round()

    left = await bench.owner.fetch("delete from artifacts where sha256 = any ($1) returning sha256", [old, young])
    assert [row["sha256"] for row in left] == [young]
    assert await bench.owner.fetchval("select count(*) from artifact_owners where publisher = $1", bench.name) == 0
    assert await bench.owner.fetchval("select to_regclass($1) is not null", newest)
    keys = await bench.owner.fetch("select id from command_keys where publisher = $1", bench.name)
    assert [row["id"] for row in keys] == [kept]
    assert len(await bench.dead_letters()) == 1
    rows = await bench.owner.fetch("select incarnation from workers where incarnation = any ($1)", [long_dead, resting])
    assert [row["incarnation"] for row in rows] == [resting]


async def publish_relays(bench: Stand, count: int) -> list[UUID]:
    """Publish as the gateway does."""
    ids = [uuid4() for _ in range(count)]
    async with await aio_pika.connect(bench.services.amqp_url("gateway")) as connection:
        exchange = await (await connection.channel()).get_exchange(COMMANDS, ensure=False)
        for id_ in ids:
            message = aio_pika.Message(
                RELAY_BODY, message_id=str(id_), type="relay.v1", user_id="gateway", delivery_mode=2,
                headers={"x-publisher": bench.name, "x-owner": bench.name},
            )  # fmt: skip
            await exchange.publish(message, routing_key="relay")
    return ids
