"""Opens connections to RabbitMQ and declares the topology; publishing is in `contracts.publisher`."""

import asyncio
from typing import Any

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from yarl import URL

from contracts.topology import Binding, Exchange, Queue, Topology, topology
from contracts.undecodable import tolerate_undecodable

HEARTBEAT_SECONDS = 5
_CONNECT_TIMEOUT_SECONDS = 10.0
_DECLARE_TIMEOUT_SECONDS = 60.0


class BrokerAway(Exception):
    """RabbitMQ cannot be reached or refuses the login; the sentence says which and where, without the password."""


async def connect(url: str, *, name: str) -> AbstractConnection:
    """Open one plain connection (no automatic recovery: whoever uses it reopens what it had on it).

    Args:
        url: amqp:// or amqps:// URL.
        name: Connection name shown by the broker.

    Raises:
        BrokerAway: It could not be opened.
    """
    tolerate_undecodable()
    address = URL(url)
    place = f"{address.host}:{address.port or 5672} as {address.user}"
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
            return await aio_pika.connect(address.update_query(heartbeat=str(HEARTBEAT_SECONDS), name=name))
    except (aiormq.ProbableAuthenticationError, aiormq.AuthenticationError) as error:
        raise BrokerAway(f"RabbitMQ at {place}: login refused") from error
    except Exception as error:  # a port that accepts and closes at once raises what no list foresees
        raise BrokerAway(f"RabbitMQ at {place} cannot be reached: {error!r}") from error


async def apply_topology(url: str, *, queue_max_length: int = 2_000_000) -> list[str]:
    """Declare everything that `contracts.topology` lists; what exists unchanged is left as it is.

    Args:
        url: AMQP URL of a user that may configure `ish.*`.
        queue_max_length: See `topology`.

    Returns:
        Names of the queues that were missing and have been made.

    Raises:
        BrokerAway: RabbitMQ cannot be reached.
        ValueError: A queue or exchange exists with other arguments; the sentence names it and both values.
    """
    connection = await connect(url, name="ish topology")
    async with connection, asyncio.timeout(_DECLARE_TIMEOUT_SECONDS):
        wanted = topology(queue_max_length)
        made = [queue.name for queue in wanted.queues if not await queue_exists(connection, queue.name)]
        await declare(connection, wanted)
    return made


async def queue_exists(connection: AbstractConnection, name: str) -> bool:
    """Whether a queue is there, asked without changing anything.

    Args:
        connection: An open connection.
        name: The queue.
    """
    channel = await connection.channel()
    try:
        await channel.declare_queue(name, passive=True)
    except aiormq.ChannelNotFoundEntity:
        return False
    await channel.close()
    return True


async def declare(connection: AbstractConnection, wanted: Topology) -> None:
    """Declare exchanges, queues and bindings.

    Args:
        connection: An open connection.
        wanted: What to declare.

    Raises:
        ValueError: Something exists with other arguments.
    """
    channel = await connection.channel()
    subject: Exchange | Queue | Binding | None = None
    try:
        for subject in wanted.exchanges:
            await channel.declare_exchange(
                subject.name, subject.type, durable=True, arguments=_table(subject.arguments)
            )
        for subject in wanted.queues:
            await channel.declare_queue(subject.name, durable=True, arguments=_table(subject.arguments))
        for subject in wanted.bindings:
            await _bind(channel, subject)
    except aiormq.ChannelPreconditionFailed as error:
        raise ValueError(f"{subject}: exists with other arguments: {error}") from error
    await channel.close()


async def _bind(channel: AbstractChannel, binding: Binding) -> None:
    queue = await channel.get_queue(binding.queue, ensure=False)
    await queue.bind(binding.exchange, routing_key=binding.key)


def _table(arguments: dict[str, Any]) -> dict[str, Any] | None:
    return dict(arguments) or None
