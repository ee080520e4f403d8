"""The consuming side of a worker: one consumer on a queue, on a channel of its own, and acks on the right channel.

Deliveries are handed over as plain values, in order, without a task each. A delivery tag means nothing on another
channel, so every delivery carries its channel's generation, and an ack for an older one is dropped: the broker delivers
that message again and the claim knows it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from itertools import count
from typing import Any

import aiormq
from pamqp import commands as spec

from contracts.amqp.broker import BrokerAway, open_channel
from contracts.logs import get_logger
from contracts.metrics import CONSUMER_ALIVE
from contracts.restarting import tell_fault, was_cancelled
from workers.amqp.channel import ConsumeChannel
from workers.amqp.connection import Connection
from workers.stages import Delivery, Watermark

_LOOKS = (2.0, 2)
"""Seconds between two looks at a queue, and how many may find that messages wait though none came."""
_LOOKS_AT_ONE = (1.0, 20)
"""As above, where a frozen worker's consumer keeps the turn until the broker has noticed."""
_LONGEST_WAIT_SECONDS = 2.0
_CLOSE_SECONDS = 5.0
_generations = count(1)
"""Channels of a process; no two intakes share a number."""


class Lost(Enum):
    """Why there is no consumer any more."""

    CHANNEL = "channel closed"
    CANCELLED = "cancelled by the broker (queue deleted?)"
    DEAF = "messages wait, and none is delivered"
    """Seen on RabbitMQ 3.10: a quorum queue deleted under load and declared again keeps a consumer that gets nothing."""


class Intake:
    """Keeps one consumer alive and the deliveries it brings in a list.

    Args:
        url: AMQP URL of the worker's user.
        queue: The queue.
        prefetch: Deliveries held at once: the only bound on what is in flight.
        in_order: Acks go out only up to where everything is settled, as one multiple ack.
        connection: Shared with other intakes; None opens one of its own.
        arrived: Set when something arrives; shared by intakes that are taken from together.
        one_of_many: The queue is one of a large set, and has a single active consumer: it may be missing for a while,
            the consumer may have to wait for its turn, and how often the broker gave a message back says nothing about
            the message (its phone may have kept it waiting through many workers).
    """

    def __init__(
        self,
        url: str,
        *,
        queue: str,
        prefetch: int,
        in_order: bool,
        connection: Connection | None = None,
        arrived: asyncio.Event | None = None,
        one_of_many: bool = False,
    ) -> None:
        self.queue = queue
        self._shares = connection is not None
        self._connection = connection or Connection(url, name=f"ish {queue} consumer")
        self._prefetch = prefetch
        self._in_order = in_order
        self._one_of_many = one_of_many
        self._channel: ConsumeChannel | None = None
        self._generation = 0
        self._orphans: int | None = None
        """Generation of deliveries whose queue was deleted under them: nobody will deliver them again."""
        self._consumer_tag: str | None = None
        self._watermark = Watermark()
        self._inbox: list[Delivery] = []
        self._unacked = 0
        self._received = 0
        self._backlog: int | None = None
        self._arrived = arrived or asyncio.Event()
        self._stopping = False
        self._released = asyncio.Event()
        self._missed = False
        self._log = get_logger(queue=queue)
        self.last_alive = asyncio.get_running_loop().time()

    @property
    def generation(self) -> int:
        """Number of the present channel; no other channel of this process has had it."""
        return self._generation

    @property
    def alive(self) -> bool:
        """Whether there is a consumer right now."""
        channel = self._channel
        return channel is not None and not channel.is_closed and not channel.cancelled_by_broker.is_set()

    @property
    def backlog(self) -> int | None:
        """Messages that waited in the queue when it was last looked at, less those received since; None: not known."""
        return self._backlog if self.alive else None

    async def run(self) -> None:
        """Keep a consumer until cancelled or released; reopens what was lost, or waits for a deleted queue."""
        loop = asyncio.get_running_loop()
        delay_seconds = 0.2
        try:
            while not self._stopping:
                try:
                    connection = await self._connection.opened()
                    started_at = loop.time()
                    await self._consume(connection)
                    if loop.time() - started_at > 5:  # noqa: PLR2004  # it has served: start over with short waits
                        delay_seconds = 0.2
                except BrokerAway as error:
                    self._log.warning("broker_unreachable", error=str(error))
                except aiormq.ChannelNotFoundEntity as error:
                    self._tell_missing(error)
                except (aiormq.AMQPError, ConnectionError, TimeoutError) as error:
                    self._log.warning("consumer_lost", error=repr(error))
                except Exception as error:  # noqa: BLE001  # whatever a channel met, the next one is another
                    tell_fault("consumer", error, queue=self.queue)
                except asyncio.CancelledError as error:
                    if was_cancelled():
                        raise
                    self._log.warning("consumer_lost", error=repr(error))
                finally:
                    await self._close()
                if not self._stopping:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(delay_seconds):
                            await self._released.wait()
                    delay_seconds = min(delay_seconds * 2, _LONGEST_WAIT_SECONDS)
        finally:
            await self._close()

    def _tell_missing(self, error: aiormq.ChannelNotFoundEntity) -> None:
        if not self._one_of_many:
            self._log.warning("consumer_lost", error=repr(error))
        elif not self._missed:
            self._missed = True
            self._log.info("queue_awaited")

    async def _close(self) -> None:
        self._alive_gauge(0)
        channel = self._channel
        if channel is not None and not channel.is_closed:
            await self._abandon(channel)
        if not self._shares:
            await self._connection.close()

    def _alive_gauge(self, value: int) -> None:
        if not self._one_of_many:  # a label for each phone would be an open set
            CONSUMER_ALIVE.labels(self.queue).set(value)

    async def _consume(self, connection: Any) -> None:
        loop = asyncio.get_running_loop()
        channel: ConsumeChannel = await open_channel(connection, ConsumeChannel)
        self._channel = channel
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=10)
        generation = next(_generations)
        self._watermark = Watermark()
        self._unacked = 0
        self._backlog = None
        # deliveries of the older channel come again; those not begun yet are forgotten here
        self._inbox = [one for one in self._inbox if one.generation == self._orphans]
        self._generation = generation

        def on_delivery(frame: spec.Basic.Deliver, properties: Any, body: bytes) -> None:
            self._inbox.append(
                Delivery(
                    frame.delivery_tag or 0,
                    generation,
                    frame.routing_key or "",
                    properties,
                    body,
                    received_at=loop.time(),
                    redelivered=bool(frame.redelivered) and not self._one_of_many,
                )
            )
            self._unacked += 1
            self._received += 1
            if self._backlog:
                self._backlog -= 1
            self._arrived.set()

        channel.on_delivery = on_delivery
        if self._stopping:
            return
        answer = await channel.basic_consume(self.queue, _unused_callback, timeout=10)
        self._consumer_tag = answer.consumer_tag
        self._missed = False
        self._alive_gauge(1)
        self._log.info("consumer_started", prefetch=self._prefetch)
        lost = await self._until_lost(channel)
        if lost is not Lost.CHANNEL:
            self._orphans = generation
        if not self._stopping:
            self._log.warning("consumer_lost", error=lost.value)

    async def _until_lost(self, channel: ConsumeChannel) -> "Lost":
        loop = asyncio.get_running_loop()
        every_seconds, most_deaf = _LOOKS_AT_ONE if self._one_of_many else _LOOKS
        probe_at, deaf_probes, heard = loop.time() + every_seconds / 4, 0, self._received
        closing = channel.closing  # read once: each read makes a future that stays with the channel as long as it lives
        while not channel.is_closed:
            if channel.cancelled_by_broker.is_set():
                return Lost.CANCELLED
            self.last_alive = loop.time()
            await asyncio.wait({closing}, timeout=0.25)
            if loop.time() < probe_at or self._stopping or channel.is_closed:
                continue
            answer = await channel.queue_declare(self.queue, passive=True, timeout=10)
            self._backlog = answer.message_count or 0
            deaf = bool(answer.message_count) and self._received == heard and self._unacked < self._prefetch
            deaf_probes = deaf_probes + 1 if deaf else 0
            if deaf_probes == most_deaf:
                return Lost.DEAF
            probe_at, heard = loop.time() + every_seconds, self._received
        return Lost.CHANNEL

    async def take(self, most: int) -> list[Delivery]:
        """Wait for deliveries and take what is there.

        Args:
            most: At the most so many.
        """
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        return self.take_now(most)

    def take_now(self, most: int) -> list[Delivery]:
        """Take what is there, if anything.

        Args:
            most: At the most so many.
        """
        taken, self._inbox = self._inbox[:most], self._inbox[most:]
        return taken

    def put_back(self, delivery: Delivery) -> None:
        """Let a delivery come again after a short local wait.

        Args:
            delivery: Neither settled nor in flight.
        """
        if delivery.generation in {self._generation, self._orphans}:
            self._inbox.append(delivery)
            self._arrived.set()

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the broker that these are settled on record; those of an older channel are dropped.

        Args:
            deliveries: In any order.
        """
        channel = self._channel
        tags = [one.tag for one in deliveries if one.generation == self._generation]
        if channel is None or channel.is_closed or not tags:
            return
        acks: list[tuple[int, bool]]
        if self._in_order:
            before, mark = self._watermark.low, self._watermark.settle(tags)
            acks = [(mark, True)] if mark is not None else []
            self._unacked -= self._watermark.low - before
        else:
            acks = [(tag, False) for tag in tags]
            self._unacked -= len(acks)
        if acks:
            await self._send(channel, acks)

    async def _send(self, channel: ConsumeChannel, acks: Sequence[tuple[int, bool]]) -> None:
        try:
            await channel.send_acks(acks)
        except Exception as error:  # noqa: BLE001  # what it acks is on record; the channel has lost count
            tell_fault("ack", error, queue=self.queue)
            if channel is self._channel:
                await self._abandon(channel)

    async def _abandon(self, channel: ConsumeChannel) -> None:
        """Close a channel: what is unacked on it is delivered again, and known."""
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await channel.close()

    async def release(self) -> None:
        """Close the channel: what is unacked goes back to its place in the queue; nothing comes from here any more."""
        self._stopping = True
        self._inbox.clear()
        self._generation = 0
        self._released.set()
        await self._close()

    async def stop_consuming(self) -> None:
        """Cancel the consumer; what was delivered stays here to be finished."""
        self._stopping = True
        channel = self._channel
        if channel is None or channel.is_closed or self._consumer_tag is None:
            return
        with suppress(Exception):
            await channel.basic_cancel(self._consumer_tag, timeout=5)

    def waiting(self) -> int:
        """Deliveries that nobody has taken yet."""
        return len(self._inbox)

    def unacked(self) -> int:
        """Deliveries that the broker would give to another worker if this one died now."""
        return self._unacked


async def _unused_callback(_: Any) -> None:
    """Deliveries go to `on_delivery`; aiormq wants a callback all the same."""
