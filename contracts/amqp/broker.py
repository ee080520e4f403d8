"""Opens connections to RabbitMQ and declares the topology; publishing is in `contracts.amqp.publisher`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from typing import Any

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.channel import Channel
from pamqp import commands as spec
from yarl import URL

from contracts.amqp.undecodable import tolerate_undecodable
from contracts.plain_text import plain
from contracts.service_errors import ServiceTrouble, place_of, sentence, user_of
from contracts.service_urls import vhost_of
from contracts.topology import Binding, Exchange, Queue, Topology, topology

HEARTBEAT_SECONDS = 5
_CONNECT_TIMEOUT_SECONDS = 10.0
_DECLARE_TIMEOUT_SECONDS = 60.0
_CHANNEL_SECONDS = 10.0


class BrokerAway(ServiceTrouble):
    """RabbitMQ cannot be reached or refuses the login; the sentence says which and where, without the password."""


class LoginRefused(BrokerAway):
    """There is no such user, or the password is another."""


class VhostClosed(BrokerAway):
    """The login is right, but the vhost is not there or not open to this user."""


async def connect(url: str, *, name: str) -> AbstractConnection:
    """Open one plain connection (no automatic recovery: whoever uses it reopens what it had on it).

    Args:
        url: amqp:// or amqps:// URL; what its query says, such as `heartbeat` and `cafile`, is kept.
        name: Connection name shown by the broker.

    Raises:
        BrokerAway: It could not be opened.
    """
    tolerate_undecodable()
    address = URL(url)
    query = {"heartbeat": str(HEARTBEAT_SECONDS), **address.query, "name": name}
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
            return await aio_pika.connect(address.with_query(query))
    except Exception as error:  # a port that accepts and closes at once raises what no list foresees
        raise told(url, error) from error


@asynccontextmanager
async def connected(url: str, *, name: str) -> AsyncIterator[AbstractConnection]:
    """A connection for the time of the block, whose errors are told in one line.

    Args:
        url: See `connect`.
        name: See `connect`.

    Raises:
        BrokerAway: It could not be opened, or RabbitMQ refused or lost what was done with it.
    """
    connection = await connect(url, name=name)
    try:
        async with connection:
            yield connection
    except (aiormq.AMQPError, OSError, TimeoutError) as error:
        raise told(url, error) from error


def told(url: str, error: BaseException) -> BrokerAway:
    """What a connection met, in one line.

    Args:
        url: Of the broker.
        error: What a library raised.
    """
    where, said = f"RabbitMQ at {place_of(url)} as {user_of(url)}", plain(error)
    if isinstance(error, aiormq.ProbableAuthenticationError | aiormq.AuthenticationError):
        return LoginRefused(f"{where}: login refused; correct the user and the password in ISH_AMQP_URL")
    # aiormq does not hand on what RabbitMQ says when it closes a connection instead of opening the vhost
    if "Connection.OpenOk" in said or "NOT_ALLOWED" in said:
        return VhostClosed(
            f"{where}: the vhost {plain(vhost_of(url))} is not there, or closed to this user; make it with `rabbitmqctl "
            "add_vhost` and allow the user with `rabbitmqctl set_permissions -p`, or correct the path of ISH_AMQP_URL"
        )
    if "ACCESS_REFUSED" in said:
        return BrokerAway(
            f"{where}: it refuses this user ({said}); give it rights in this vhost, or correct ISH_AMQP_URL"
        )
    return BrokerAway(sentence("RabbitMQ", url, error, setting="ISH_AMQP_URL"))


async def open_channel(connection: AbstractConnection, kind: Callable[[Any, int], Any]) -> Any:
    """Open an aiormq channel, plain or of our own class, on aio-pika's connection.

    aio-pika's own channels each leave callbacks on their connection that stay for as long as it lives, so on a connection
    that lives long none is opened; and numbers are used again, since the broker allows 2047 of them.

    Args:
        connection: An open connection.
        kind: Makes the channel from aiormq's connection and the channel's number.
    """
    transport = connection.transport
    if transport is None:
        raise ConnectionError("the connection is closed")
    inner = transport.connection
    number = next(free for free in count(1) if free not in inner.channels)
    channel = kind(inner, number)
    inner.channels[number] = channel
    async with asyncio.timeout(_CHANNEL_SECONDS):
        await channel.open()
    return channel


@asynccontextmanager
async def passing_channel(connection: AbstractConnection) -> AsyncIterator[Channel]:
    """A plain channel for a few declarations, closed at the end; the broker closes it at the first that it refuses.

    Args:
        connection: An open connection.
    """
    channel: Channel = await open_channel(connection, partial(Channel, publisher_confirms=False))
    try:
        yield channel
    finally:
        if not channel.is_closed:
            with suppress(aiormq.AMQPError, ConnectionError, TimeoutError):
                async with asyncio.timeout(_CHANNEL_SECONDS):
                    await channel.close()


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
    async with connected(url, name="ish topology") as connection, asyncio.timeout(_DECLARE_TIMEOUT_SECONDS):
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
    try:
        async with passing_channel(connection) as channel:
            await channel.queue_declare(name, passive=True)
    except aiormq.ChannelNotFoundEntity:
        return False
    return True


async def look_at_queues(
    connection: AbstractConnection, names: Sequence[str]
) -> dict[str, spec.Queue.DeclareOk | None]:
    """Ask after many queues without changing anything.

    Args:
        connection: An open connection.
        names: Of the queues.

    Returns:
        For each, in the order given, its numbers of messages and consumers; None when there is no such queue.
    """
    found: dict[str, spec.Queue.DeclareOk | None] = {}
    left = list(names)
    while left:
        with suppress(aiormq.ChannelNotFoundEntity):  # which closes the channel
            async with passing_channel(connection) as channel:
                while left:
                    name = left.pop(0)
                    found[name] = None
                    found[name] = await channel.queue_declare(name, passive=True)
    return found


async def declare(connection: AbstractConnection, wanted: Topology) -> None:
    """Declare exchanges, queues and bindings.

    Args:
        connection: An open connection.
        wanted: What to declare.

    Raises:
        ValueError: Something exists with other arguments.
    """
    subject: Exchange | Queue | Binding | None = None
    try:
        async with passing_channel(connection) as channel:
            for subject in wanted.exchanges:
                await channel.exchange_declare(
                    subject.name, exchange_type=subject.type, durable=True, arguments=_table(subject.arguments)
                )
            for subject in wanted.queues:
                await channel.queue_declare(subject.name, durable=True, arguments=_table(subject.arguments))
            for subject in wanted.bindings:
                await channel.queue_bind(subject.queue, subject.exchange, subject.key)
    except aiormq.ChannelPreconditionFailed as error:
        raise ValueError(f"{subject}: exists with other arguments: {error}") from error


def _table(arguments: dict[str, Any]) -> dict[str, Any] | None:
    return dict(arguments) or None
