"""This gateway's own reply queue: results of commands whose sender waits arrive here, and wake it.

The queue belongs to one connection and goes with it; the next has another name. (A durable quorum queue that is made
right before the broker dies can answer nothing after its restart.) Nothing depends on it: a reply that is lost with a
connection is found by the poll in `gateway.services.result_waiters`.
"""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import aiormq
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from contracts.amqp.broker import BrokerAway, connect
from contracts.logs import get_logger
from contracts.restarting import tell_fault
from contracts.topology import REPLIES, reply_queue
from gateway import PUBLISHER
from gateway.services.result_waiters import Waiting

_MAX_LENGTH = 100_000
_CHECK_SECONDS = 1.0
_OPEN_SECONDS = 10.0


class Replies:
    """Consumes the reply queue.

    Args:
        url: AMQP URL of the gateway's user.
        waiting: Who is woken.
    """

    def __init__(self, url: str, waiting: Waiting) -> None:
        self._url = url
        self._waiting = waiting
        self._name: str | None = None

    @property
    def address(self) -> str | None:
        """The `reply_to` of a command whose sender waits; None while there is no queue to send to."""
        return self._name

    async def run(self) -> None:
        """Consume until cancelled; connects again whenever the queue or the connection is gone."""
        delay_seconds = 0.1
        log = get_logger(connection="gateway replies")
        while True:
            try:
                connection = await connect(self._url, name="gateway replies")
                async with connection:
                    await self._consume(connection)
                    delay_seconds = 0.1
                log.warning("consumer_lost")
            except BrokerAway as error:
                log.warning("broker_unreachable", error=str(error))
            except (aiormq.AMQPError, ConnectionError, TimeoutError) as error:
                log.warning("consumer_lost", error=repr(error))
            except Exception as error:  # noqa: BLE001  # whatever a connection met, the next one is another
                tell_fault("replies", error)
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(delay_seconds * 2, 5.0)

    async def _consume(self, connection: AbstractConnection) -> None:
        name = reply_queue(f"{PUBLISHER}.{uuid4().hex[:12]}")
        async with asyncio.timeout(_OPEN_SECONDS):
            channel = await connection.channel(publisher_confirms=False)
            queue = await channel.declare_queue(name, exclusive=True, arguments={"x-max-length": _MAX_LENGTH})
            await queue.bind(REPLIES, routing_key=name)
            tag = await queue.consume(self._wake, no_ack=True)
        inner: Any = await channel.get_underlay_channel()
        closing = inner.closing  # read once: each read makes a future that stays with the channel as long as it lives
        self._name = name
        get_logger().info("consumer_started", queue=name)
        try:
            # a deleted queue only takes the consumer off the channel
            while not channel.is_closed and not inner.is_closed and tag in inner.consumers:
                await asyncio.wait({closing}, timeout=_CHECK_SECONDS)
        finally:
            self._name = None

    async def _wake(self, message: AbstractIncomingMessage) -> None:
        with suppress(ValueError):  # its id is none
            self._waiting.finish(PUBLISHER, UUID(message.message_id or ""), message.body)
