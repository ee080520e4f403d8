"""Keeps a FastStream subscription on one of the broker's side queues (`ish.dead`, `ish.unrouted`).

These two are quiet, so FastStream's convenience costs nothing. Acks are ours alone, a message is handed over as it came,
and nothing is ever answered to its `reply_to`. The queue is found, not declared: `guard` declares what is missing.
Found by trial with faststream 0.7.8 and aio-pika 10.2.1: the subscription comes back by itself after a killed broker, a
closed connection and a deleted queue. Should it ever not, `guard` sees a queue without consumers, or one whose messages
nobody gets, and it starts over.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aio_pika.abc import AbstractIncomingMessage
from faststream import AckPolicy
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitMessage, RabbitQueue
from yarl import URL

from contracts.amqp.broker import HEARTBEAT_SECONDS, told
from contracts.logs import get_logger
from contracts.metrics import CONSUMER_ALIVE, RECONNECTS

_START_SECONDS = 20.0
_GRACE_SECONDS = 3.0
_HANDLE_RETRY_SECONDS = 5.0
_SILENT_LOOKS = 5

Handle = Callable[[AbstractIncomingMessage], Awaitable[bool]]
"""Deals with one message; False leaves it to be tried again. What it raises is logged, and it is tried again."""


class Subscription:
    """One subscription.

    Args:
        url: AMQP URL of this process's user.
        queue: The queue; it must exist.
        prefetch: Messages held at once.
        handle: Called for each message; it is acked when this returns True.
    """

    def __init__(self, url: str, queue: str, *, prefetch: int, handle: Handle) -> None:
        self.queue = queue
        address = URL(url)
        query = {"heartbeat": str(HEARTBEAT_SECONDS), **address.query, "name": f"ish {queue}"}
        self._url = str(address.with_query(query))
        self._prefetch = prefetch
        self._handle = handle
        self._renew = asyncio.Event()
        self._closing = asyncio.Event()
        self.starts = 0
        """How often it began."""
        self.held = 0
        """Messages being dealt with."""
        self._received = self._heard = self._silent_looks = 0
        self._log = get_logger(queue=queue)

    def looked_at(self, *, ready: int, consumers: int) -> None:
        """Hear what the broker says of the queue; starts over when that says, look after look, that nothing gets here.

        Args:
            ready: Messages waiting. A consumer that outlived a deleted queue may be deaf: they wait, and there is room here.
            consumers: How many the queue has, in any process.
        """
        deaf = ready > 0 and self._received == self._heard and self.held < self._prefetch
        self._silent_looks = self._silent_looks + 1 if deaf or not consumers else 0
        self._heard = self._received
        if self._silent_looks >= _SILENT_LOOKS:
            self._silent_looks = 0
            self._renew.set()

    async def round(self) -> bool:
        """Consume until asked to renew, or until cancelled.

        Raises:
            BrokerAway: It cannot be reached.
            aiormq.AMQPError: The queue is missing.
        """
        self._renew.clear()
        self._closing.clear()
        broker = RabbitBroker(
            self._url, logger=None, apply_types=False, reconnect_interval=1.0, graceful_timeout=_GRACE_SECONDS
        )
        subscriber = broker.subscriber(
            RabbitQueue(self.queue, queue_type=QueueType.QUORUM, declare=False),
            channel=Channel(prefetch_count=self._prefetch, on_return_raises=True),
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,
            decoder=_as_it_came,
        )
        subscriber(self._receive)
        try:
            try:
                async with asyncio.timeout(_START_SECONDS):
                    await broker.start()
            except OSError as error:
                raise told(self._url, error) from error
            self.starts += 1
            if self.starts > 1:
                RECONNECTS.labels("subscription").inc()
            CONSUMER_ALIVE.labels(self.queue).set(1)
            self._log.info("consumer_started")
            await self._renew.wait()
            self._log.warning("consumer_lost", error="nothing is delivered")
        finally:
            self._closing.set()
            CONSUMER_ALIVE.labels(self.queue).set(0)
            # a broker that is gone cannot be told goodbye
            with suppress(Exception):
                await broker.stop()
        return True

    async def _receive(self, message: RabbitMessage) -> None:
        self._received += 1
        self.held += 1
        try:
            await self._settle(message.raw_message)
        finally:
            self.held -= 1

    async def _settle(self, raw: Any) -> None:
        # a channel that is gone has given the message back: somebody else has it by now
        while not (raw.channel.is_closed or self._closing.is_set()):
            try:
                if await self._handle(raw):
                    await raw.ack()
                    return
            except Exception as error:  # noqa: BLE001  # it stays in the broker, and the next one must not wait for ever
                self._log.warning("message_postponed", message_id=raw.message_id, error=repr(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(_HANDLE_RETRY_SECONDS):
                    await self._closing.wait()


async def _as_it_came(message: RabbitMessage) -> RabbitMessage:
    """In place of FastStream's decoder, whose failure on bytes that are no JSON would leave a message unhandled."""
    return message
