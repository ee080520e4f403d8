"""Each phone's queue on the broker: made, bound, mended and removed by the outbox worker; consumed in order by one worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import aiormq
import pytest

from contracts.amqp.broker import connect, declare
from contracts.amqp.frames import Properties
from contracts.amqp.publisher import Outgoing
from contracts.topology import ANDROID, COMMANDS, device_key, device_queue, device_topology
from ops.stack.session import Session
from tests.integration.outbox_stand import TAP_BODY, Stand, stand, until
from workers.amqp.connection import Connection
from workers.device_pool.queues import PhonesIntake
from workers.outbox.repair.device_queues import DeviceQueues
from workers.stages import Delivery
from workers.task_cancellation import end

WEEK = timedelta(days=7, minutes=1)


@pytest.fixture
async def bench(services: Session) -> AsyncIterator[Stand]:
    async with stand(services) as one:
        await one.owner.execute("delete from devices")
        yield one
        await one.owner.execute("delete from devices")


@pytest.fixture
async def queues(bench: Stand) -> AsyncIterator[DeviceQueues]:
    one = DeviceQueues(bench.services.amqp_url("outbox"), bench.database, queue_max_length=2_000_000)
    yield one
    await one.close()


@pytest.fixture
async def serial(bench: Stand) -> AsyncIterator[str]:
    """A phone of this test alone, whose queue is gone afterwards."""
    one = f"Q{uuid4().hex[:8]}"
    yield one
    async with await connect(bench.services.amqp_url("admin"), name="test") as connection:
        await (await connection.channel()).queue_delete(device_queue(one))


async def seen(
    bench: Stand, serial: str, *, transport: str, ago: timedelta = timedelta(0), model: str | None = "P"
) -> None:
    await bench.owner.execute(
        """insert into devices (serial, host, transport, state, model, seen_at)
        values ($1, 'h', $2, 'device', $3, clock_timestamp() - $4::interval)
        on conflict (serial) do update set transport = excluded.transport, seen_at = excluded.seen_at""",
        serial,
        transport,
        model,
        ago,
    )


async def send(bench: Stand, name: str, *, body: bytes = TAP_BODY) -> str:
    """Publish a command to a phone's key; returns its id."""
    id_ = str(uuid4())
    properties = Properties(
        message_id=id_,
        type="android.execute.v1",
        user_id="outbox",
        app_id="test",
        correlation_id=None,
        reply_to=None,
        timestamp=0,
        headers={"x-publisher": bench.name, "x-owner": bench.name},
    )
    await bench.publisher.publish(Outgoing(COMMANDS, device_key(name), properties, body))
    return id_


async def exists(bench: Stand, queue: str) -> bool:
    try:
        await bench.depth(queue)
    except aiormq.ChannelNotFoundEntity:
        return False
    return True


async def test_a_phone_whose_name_makes_no_queue_keeps_no_other_from_its_own(
    bench: Stand, queues: DeviceQueues, serial: str
) -> None:
    await seen(bench, "0" * 300, transport="odd")
    await seen(bench, serial, transport=serial)

    await queues.round()
    await queues.round()

    assert await exists(bench, device_queue(serial))


async def test_a_phone_gets_a_queue_under_both_its_names_and_a_nameless_one_gets_none(
    bench: Stand, queues: DeviceQueues, serial: str
) -> None:
    await seen(bench, serial, transport=f"{serial}:5555")
    await seen(bench, "10.9.9.9:5555", transport="10.9.9.9:5555", model=None)

    await queues.round()
    await send(bench, serial)
    await send(bench, f"{serial}:5555")

    assert await bench.depth(device_queue(serial)) == 2
    assert not await exists(bench, device_queue("10.9.9.9:5555"))


async def test_a_phone_at_another_address_is_not_found_under_the_old_one(
    bench: Stand, queues: DeviceQueues, serial: str
) -> None:
    await seen(bench, serial, transport="10.9.9.1:5555")
    await queues.round()
    await seen(bench, serial, transport="10.9.9.2:5555")
    await queues.round()

    for address in ("10.9.9.1:5555", "10.9.9.2:5555"):
        await send(bench, address)

    assert await bench.depth(device_queue(serial)) == 1


async def test_the_queue_of_a_phone_gone_for_a_week_is_removed_when_nothing_waits_in_it(
    bench: Stand, queues: DeviceQueues, serial: str
) -> None:
    await seen(bench, serial, transport="t")
    await queues.round()
    await send(bench, serial)
    await seen(bench, serial, transport="t", ago=WEEK)

    await queues.round()
    assert await bench.depth(device_queue(serial)) == 1
    await bench.purge(device_queue(serial))
    await queues.round()

    assert not await exists(bench, device_queue(serial))
    await seen(bench, serial, transport="t")
    await queues.round()
    assert await exists(bench, device_queue(serial))


async def test_a_deleted_queue_comes_back_with_the_commands_recorded_for_it(bench: Stand, serial: str) -> None:
    await seen(bench, serial, transport="t")
    async with bench.running():
        await until("it has its queue", lambda: exists(bench, device_queue(serial)))
        id_ = await bench.command("queued", kind="android.execute", body=TAP_BODY, accepted=timedelta(minutes=-1))
        await bench.owner.execute(
            "update commands set routing_key = $2 where publisher = $1", bench.name, device_key(serial)
        )
        await bench.delete(device_queue(serial))

        async def is_there_again() -> bool:
            return await exists(bench, device_queue(serial)) and bool(await bench.depth(device_queue(serial)))

        await until("the command is there again", is_there_again)

    async with consuming(bench) as intake:
        intake.attach(serial, alias=lambda: None)
        again = await take_one(intake)
        await intake.ack([again])
    assert again.properties.message_id == str(id_)


async def test_a_command_for_a_phone_without_a_queue_goes_to_any_worker_to_decide(bench: Stand) -> None:
    async with bench.running():
        id_ = await send(bench, "NEVER-SEEN")

        async def arrived() -> bool:
            return await bench.depth(ANDROID) == 1

        await until("it waits for a worker", arrived)

    message = await bench.take(ANDROID)
    assert message is not None
    assert (message.message_id, message.routing_key) == (id_, "android.execute")
    assert message.headers["x-publisher"] == bench.name


@asynccontextmanager
async def consuming(bench: Stand) -> AsyncIterator[PhonesIntake]:
    intake = PhonesIntake(bench.services.amqp_url("worker"), prefetch=5, changed=asyncio.Event())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(intake.run())
        try:
            yield intake
        finally:
            await end([task])


async def take_one(intake: PhonesIntake) -> Delivery:
    async with asyncio.timeout(60):
        [delivery] = await intake.take(10)
    return delivery


async def declared(bench: Stand, *serials: str) -> None:
    async with await connect(bench.services.amqp_url("admin"), name="test") as connection:
        for serial in serials:
            await declare(connection, device_topology(serial, ""))


async def test_one_command_of_a_phone_is_in_hand_and_goes_back_to_its_place_when_the_queue_is_left(
    bench: Stand, serial: str
) -> None:
    await declared(bench, serial)
    ids = [await send(bench, serial) for _ in range(3)]
    async with consuming(bench) as first, consuming(bench) as second:
        queue = first.attach(serial, alias=lambda: None)
        in_hand = await take_one(first)
        assert in_hand.properties.message_id == ids[0]
        assert first.phone_of(bench.name, uuid_of(in_hand)) == serial
        await first.ack([in_hand])
        in_hand = await take_one(first)
        waiting = second.attach(serial, alias=lambda: None)
        await until("the second worker's consumer is there", lambda: answered(waiting.backlog is not None))

        await first.detach(queue)

        taken = await take_one(second)
        assert taken.properties.message_id == ids[1] == in_hand.properties.message_id
        await first.ack([in_hand])  # of a channel that is gone: nothing happens
        await second.ack([taken])
        last = await take_one(second)
        assert last.properties.message_id == ids[2]
        await second.ack([last])
        assert second.phone_of(bench.name, uuid_of(last)) is None


async def test_a_command_put_off_keeps_its_phone_waiting_and_no_other(bench: Stand, serial: str) -> None:
    other = f"{serial}B"
    await declared(bench, serial, other)
    ids = [await send(bench, serial) for _ in range(2)]
    async with consuming(bench) as intake:
        queue, second = intake.attach(serial, alias=lambda: None), intake.attach(other, alias=lambda: None)
        in_hand = await take_one(intake)
        queue.park(in_hand, 0.5)
        assert not queue.is_running

        theirs = await send(bench, other)
        await until("the other's is there", lambda: answered(second.waiting() == 1))
        assert (await take_one(intake)).properties.message_id == theirs
        again = await take_one(intake)

        assert again.properties.message_id == ids[0]
        assert again is in_hand
    await bench.delete(device_queue(other))


async def test_a_queue_that_is_not_there_yet_is_waited_for(bench: Stand, serial: str) -> None:
    async with consuming(bench) as intake:
        queue = intake.attach(serial, alias=lambda: None)
        assert not queue.is_idle
        await declared(bench, serial)
        await until("it is consumed", lambda: answered(queue.depth == 0))
        id_ = await send(bench, serial)

        taken = await take_one(intake)
        assert taken.properties.message_id == id_
        assert (queue.depth, queue.is_running) == (1, True)
        await intake.ack([taken])
        assert queue.is_idle


async def test_a_lost_connection_is_opened_again_for_all_its_queues(bench: Stand, serial: str) -> None:
    await declared(bench, serial)
    async with consuming(bench) as intake:
        queue = intake.attach(serial, alias=lambda: None)
        await until("it is consumed", lambda: answered(queue.depth == 0))

        await intake.connection.close()

        await until("all is consumed again", lambda: answered(queue.depth == 0 and intake.alive))
        id_ = await send(bench, serial)
        assert (await take_one(intake)).properties.message_id == id_


async def test_a_connection_is_opened_once_however_many_ask(services: Session) -> None:
    one = Connection(services.amqp_url("worker"), name="test")
    opened = await asyncio.gather(*(one.opened() for _ in range(5)))
    try:
        assert len(set(map(id, opened))) == 1
        assert one.is_open
    finally:
        await one.close()
    assert not one.is_open


async def answered(so: bool) -> bool:  # noqa: FBT001  # a condition
    return so


def uuid_of(delivery: Delivery) -> UUID:
    return UUID(delivery.properties.message_id)
