"""Queues that an operator's slip or a flood broke: deleted, or full to the brim; whole again afterwards."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq.abc import FieldTable

from contracts.amqp.broker import apply_topology
from ops.stack.session import Session

_MOST_FILLERS = 50
_CONFIRM_SECONDS = 10.0


@asynccontextmanager
async def deleted(services: Session, names: Sequence[str]) -> AsyncIterator[None]:
    """Delete queues of the topology with what they hold; whoever does not make them again before the end, this does."""
    administrator = services.amqp_url("admin")
    async with await aio_pika.connect(administrator) as connection:
        channel = await connection.channel()
        for name in names:
            await channel.queue_delete(name)
    try:
        yield
    finally:
        await apply_topology(administrator)


@asynccontextmanager
async def full(services: Session, name: str, *, exchange: str) -> AsyncIterator[None]:
    """Put a queue of the same name in a queue's place that takes nothing; the topology's own is made again at the end.

    Args:
        services: Where.
        name: The queue, and the key that it is bound by.
        exchange: What it is bound to.
    """
    administrator = services.amqp_url("admin")
    async with await aio_pika.connect(administrator) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await make_full(channel, name, exchange=exchange)
    try:
        yield
    finally:
        async with await aio_pika.connect(administrator) as connection:
            await (await connection.channel()).queue_delete(name)
        await apply_topology(administrator)


async def make_full(channel: AbstractChannel, name: str, *, exchange: str) -> None:
    """Replace a queue by one of length 1 and publish to it until the broker refuses.

    Args:
        channel: As the administrator, with publisher confirms.
        name: The queue, and the key that it is bound by.
        exchange: What it is bound to.
    """
    await channel.queue_delete(name)
    small: FieldTable = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    queue = await channel.declare_queue(name, durable=True, arguments=small)
    await queue.bind(exchange, routing_key=name)
    filler = aio_pika.Message(b"filler", message_id="filler", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    for _ in range(_MOST_FILLERS):
        try:
            async with asyncio.timeout(_CONFIRM_SECONDS):
                await channel.default_exchange.publish(filler, routing_key=name)
        except aio_pika.exceptions.DeliveryError:
            return
    raise AssertionError(f"{name} still takes messages after {_MOST_FILLERS}")
