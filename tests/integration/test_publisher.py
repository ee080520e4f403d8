"""Publishing under confirms on a real broker: every way that a publish can end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from aiormq.channel import Channel

from contracts.amqp.broker import connect, open_channel
from contracts.amqp.frames import Properties
from contracts.amqp.publisher import Outgoing, Publisher, Refused, Unconfirmed, Unroutable
from ops.stack.session import Session


@asynccontextmanager
async def publishing(url: str, *, timeout_seconds: float = 20) -> AsyncIterator[Publisher]:
    publisher = Publisher(url, name="test publisher", timeout_seconds=timeout_seconds)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(publisher.run())
        try:
            yield publisher
        finally:
            task.cancel()


@asynccontextmanager
async def queue(services: Session, **arguments: Any) -> AsyncIterator[str]:
    """The name of a reply queue that is there while the block runs."""
    name = f"reply.test-{uuid4().hex[:8]}"
    connection = await aio_pika.connect(services.amqp_url("ops"))
    async with connection:
        channel = await connection.channel()
        made = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum", **arguments})
        await made.bind("ish.replies", name)
    try:
        yield name
    finally:
        connection = await aio_pika.connect(services.amqp_url("ops"))
        async with connection:
            channel = await connection.channel()
            await channel.queue_delete(name)


def reply(key: str, *, message_id: str | None = None, body: bytes = b"{}", mandatory: bool = True) -> Outgoing:
    properties = Properties(message_id or str(uuid4()), "relay.result.v1", user_id="worker")
    return Outgoing("ish.replies", key, properties, body, mandatory=mandatory)


async def bodies(services: Session, name: str, count: int) -> list[bytes]:
    found: list[bytes] = []
    connection = await aio_pika.connect(services.amqp_url("ops"))
    async with connection, asyncio.timeout(30):
        channel = await connection.channel()
        made = await channel.get_queue(name, ensure=False)
        while len(found) < count:
            message = await made.get(fail=False, no_ack=True)
            if message is None:
                await asyncio.sleep(0.02)
            else:
                found.append(message.body)
    return found


async def test_a_confirmed_message_is_in_the_queue_with_all_its_bytes(services: Session) -> None:
    big = bytes(range(256)) * 2048

    async with queue(services) as made, publishing(services.amqp_url("worker")) as publisher:
        await publisher.publish(reply(made, body=big))

        assert await bodies(services, made, 1) == [big]


async def test_a_message_nobody_is_bound_for_comes_back(services: Session) -> None:
    async with publishing(services.amqp_url("worker")) as publisher:
        with pytest.raises(Unroutable, match=r"reply\.nobody"):
            await publisher.publish(reply("reply.nobody"))

        await publisher.publish(reply("reply.nobody", mandatory=False))


async def test_among_many_only_the_unroutable_ones_fail(services: Session) -> None:
    async with queue(services) as made, publishing(services.amqp_url("worker")) as publisher:
        messages = [reply(made if n % 7 else "reply.nobody", body=b"%d" % n) for n in range(500)]

        failures = await publisher.publish_all(messages)

        assert [n for n, failure in enumerate(failures) if failure] == [n for n in range(500) if n % 7 == 0]
        assert sorted(int(body) for body in await bodies(services, made, 428)) == [n for n in range(500) if n % 7]


async def test_two_messages_of_one_id_in_flight_keep_their_own_answers(services: Session) -> None:
    async with queue(services) as made, publishing(services.amqp_url("worker")) as publisher:
        one_id = str(uuid4())

        failures = await publisher.publish_all(
            [
                reply(made, message_id=one_id),
                reply("reply.nobody", message_id=one_id),
                reply(made, message_id=one_id),
            ]
        )

        assert [type(failure).__name__ for failure in failures] == ["NoneType", "Unroutable", "NoneType"]


async def test_a_full_queue_refuses(services: Session) -> None:
    limits = {"x-max-length": 5, "x-overflow": "reject-publish"}
    async with queue(services, **limits) as made, publishing(services.amqp_url("worker")) as publisher:
        taken = 0
        with pytest.raises(Refused):  # noqa: PT012  # a quorum queue notices a little late that it is full
            for _ in range(200):
                await publisher.publish(reply(made))
                taken += 1

        assert taken >= 5
        assert len(await bodies(services, made, taken)) == taken


async def test_a_caller_that_stops_waiting_does_not_shift_the_answers_of_others(services: Session) -> None:
    async with queue(services) as made, publishing(services.amqp_url("worker")) as publisher:
        abandoned = [await publisher.send(reply("reply.nobody")) for _ in range(50)]
        kept = [await publisher.send(reply(made, body=b"%d" % n)) for n in range(50)]
        for future in abandoned:
            future.cancel()

        await asyncio.gather(*kept)

        assert len(await bodies(services, made, 50)) == 50


async def test_without_a_broker_a_publish_is_unknown_and_works_again_afterwards(services: Session) -> None:
    async with queue(services) as made, publishing(services.amqp_url("worker"), timeout_seconds=1) as publisher:
        await publisher.publish(reply(made, body=b"before"))
        # RabbitMQ 3.10 writes down within a second or so that a quorum queue exists; killed before that, it loses the queue
        await asyncio.sleep(2)
        await asyncio.to_thread(services.broker.kill)
        with pytest.raises(Unconfirmed):
            await publisher.publish(reply(made))
        await asyncio.to_thread(services.broker.start)

        async with asyncio.timeout(60):
            while True:
                try:
                    await publisher.publish(reply(made, body=b"after"))
                    break
                except Unconfirmed:
                    continue

        assert publisher.connects >= 2
        found = await bodies(services, made, 2)
        assert found[0] == b"before"
        assert b"after" in found


async def test_a_frozen_broker_makes_a_publish_unknown_in_time(services: Session) -> None:
    async with queue(services) as made, publishing(services.amqp_url("worker"), timeout_seconds=1) as publisher:
        await publisher.publish(reply(made))
        await asyncio.to_thread(services.broker.freeze)
        try:
            async with asyncio.timeout(10):
                with pytest.raises(Unconfirmed, match="no confirm within 1 s"):
                    await publisher.publish(reply(made))
        finally:
            await asyncio.to_thread(services.broker.thaw)


async def test_publishing_where_one_has_no_right_is_not_confirmed(services: Session) -> None:
    async with publishing(services.amqp_url("gateway"), timeout_seconds=2) as publisher:
        with pytest.raises(Unconfirmed):
            await publisher.publish(reply("reply.nobody"))


async def test_channels_that_are_opened_in_turns_use_their_numbers_again(services: Session) -> None:
    numbers = []
    async with await connect(services.amqp_url("worker"), name="test channels") as connection:
        older = await open_channel(connection, Channel)
        for _ in range(5):
            newer = await open_channel(connection, Channel)
            numbers.append(newer.number)
            await older.close()
            older = newer

    assert max(numbers) == 2  # the broker allows 2047: a worker whose phones come and go for a year needs more openings
