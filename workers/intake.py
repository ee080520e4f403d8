"""The consuming side of a worker: a connection of its own, one consumer on a work queue, acks on the right channel.

Deliveries are handed over as plain values, in order, without a task each. A delivery tag means nothing on another
channel, so every delivery carries its channel's generation, and an ack for an older one is dropped: the broker delivers
that message again and the claim knows it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any

import aiormq
from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp import commands as spec
from pamqp import frame as amqp_frame
from typing_extensions import override

from contracts.broker import BrokerAway, connect
from contracts.logs import get_logger
from contracts.metrics import CONSUMER_ALIVE, RECONNECTS
from contracts.publisher import open_channel
from workers.deliveries import Delivery, Watermark

_PROBE_SECONDS = 2.0
_DEAF_PROBES = 2


class Lost(Enum):
    """Why there is no consumer any more."""

    CHANNEL = "channel closed"
    CANCELLED = "cancelled by the broker (queue deleted?)"
    DEAF = "messages wait, and none is delivered"
    """Seen on RabbitMQ 3.10: a quorum queue deleted under load and declared again keeps a consumer that gets nothing."""


class ConsumeChannel(Channel):
    """aiormq's channel, handing deliveries over without a task for each."""

    def __init__(self, connection: Any, number: int) -> None:
        super().__init__(connection, number, publisher_confirms=False)
        self.on_delivery: Callable[[spec.Basic.Deliver, Any, bytes], None] = lambda *_: None
        self.cancelled_by_broker = asyncio.Event()

    @override
    async def _on_deliver_frame(self, frame: spec.Basic.Deliver) -> None:
        header: Any = await self._get_frame()
        message = await self._read_content(frame, header)
        self.on_delivery(frame, header.properties, message.body)

    @override
    async def _on_cancel_frame(self, frame: spec.Basic.CancelOk | spec.Basic.Cancel) -> None:
        await super()._on_cancel_frame(frame)
        if isinstance(frame, spec.Basic.Cancel):
            self.cancelled_by_broker.set()

    async def send_acks(self, acks: Sequence[tuple[int, bool]]) -> None:
        """Send several acks in one write.

        Args:
            acks: Delivery tags, each with whether it stands for all up to it.
        """
        payload = b"".join(
            amqp_frame.marshal(spec.Basic.Ack(delivery_tag=tag, multiple=multiple), self.number)
            for tag, multiple in acks
        )
        await self.write_queue.put(ChannelFrame(payload=payload, should_close=False))


class Intake:
    """Keeps one consumer alive and the deliveries it brings in a list.

    Args:
        url: AMQP URL of the worker's user.
        queue: The work queue.
        prefetch: Deliveries held at once: the only bound on what is in flight.
        in_order: Acks go out only up to where everything is settled, as one multiple ack.
    """

    def __init__(self, url: str, *, queue: str, prefetch: int, in_order: bool) -> None:
        self.queue = queue
        self._url = url
        self._prefetch = prefetch
        self._in_order = in_order
        self._channel: ConsumeChannel | None = None
        self._generation = 0
        self._orphans: int | None = None
        """Generation of deliveries whose queue was deleted under them: nobody will deliver them again."""
        self._consumer_tag: str | None = None
        self._watermark = Watermark()
        self._inbox: list[Delivery] = []
        self._unacked = 0
        self._received = 0
        self._arrived = asyncio.Event()
        self._stopping = False
        self._log = get_logger(queue=queue)
        self.last_alive = asyncio.get_running_loop().time()

    @property
    def generation(self) -> int:
        """Number of the present channel; it rises with each."""
        return self._generation

    @property
    def alive(self) -> bool:
        """Whether there is a consumer right now."""
        channel = self._channel
        return channel is not None and not channel.is_closed and not channel.cancelled_by_broker.is_set()

    async def run(self) -> None:
        """Keep a consumer until cancelled; reopens the connection, or waits for a deleted queue to come back."""
        loop = asyncio.get_running_loop()
        delay_seconds = 0.2
        opened = 0
        while not self._stopping:
            try:
                connection = await connect(self._url, name=f"ish {self.queue} consumer")
            except BrokerAway as error:
                self._log.warning("broker_unreachable", error=str(error))
            else:
                try:
                    opened += 1
                    if opened > 1:
                        RECONNECTS.labels("consumer").inc()
                    started_at = loop.time()
                    await self._consume(connection)
                    if loop.time() - started_at > 5:  # noqa: PLR2004  # it has served: start over with short waits
                        delay_seconds = 0.2
                except (aiormq.AMQPError, ConnectionError, TimeoutError) as error:
                    self._log.warning("consumer_lost", error=repr(error))
                finally:
                    CONSUMER_ALIVE.labels(self.queue).set(0)
                    with suppress(Exception):
                        await connection.close()
            if not self._stopping:
                await asyncio.sleep(delay_seconds)
                delay_seconds = min(delay_seconds * 2, 2.0)

    async def _consume(self, connection: Any) -> None:
        loop = asyncio.get_running_loop()
        channel: ConsumeChannel = await open_channel(connection, ConsumeChannel)
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=10)
        self._generation += 1
        generation = self._generation
        self._watermark = Watermark()
        self._unacked = 0
        # deliveries of the older channel come again; those not begun yet are forgotten here
        self._inbox = [one for one in self._inbox if one.generation == self._orphans]

        def on_delivery(frame: spec.Basic.Deliver, properties: Any, body: bytes) -> None:
            self._inbox.append(
                Delivery(
                    frame.delivery_tag or 0,
                    generation,
                    frame.routing_key or "",
                    properties,
                    body,
                    received_at=loop.time(),
                    redelivered=bool(frame.redelivered),
                )
            )
            self._unacked += 1
            self._received += 1
            self._arrived.set()

        channel.on_delivery = on_delivery
        self._channel = channel
        answer = await channel.basic_consume(self.queue, _unused_callback, timeout=10)
        self._consumer_tag = answer.consumer_tag
        CONSUMER_ALIVE.labels(self.queue).set(1)
        self._log.info("consumer_started", prefetch=self._prefetch)
        lost = await self._until_lost(channel)
        if lost is not Lost.CHANNEL:
            self._orphans = generation
        if not self._stopping:
            self._log.warning("consumer_lost", error=lost.value)

    async def _until_lost(self, channel: ConsumeChannel) -> "Lost":
        loop = asyncio.get_running_loop()
        probe_at, deaf_probes, heard = loop.time() + _PROBE_SECONDS, 0, self._received
        while not channel.is_closed:
            if channel.cancelled_by_broker.is_set():
                return Lost.CANCELLED
            self.last_alive = loop.time()
            await asyncio.wait({channel.closing}, timeout=0.25)
            if loop.time() < probe_at or self._stopping or channel.is_closed:
                continue
            answer = await channel.queue_declare(self.queue, passive=True, timeout=10)
            deaf = bool(answer.message_count) and self._received == heard and self._unacked < self._prefetch
            deaf_probes = deaf_probes + 1 if deaf else 0
            if deaf_probes == _DEAF_PROBES:
                return Lost.DEAF
            probe_at, heard = loop.time() + _PROBE_SECONDS, self._received
        return Lost.CHANNEL

    async def take(self, most: int) -> list[Delivery]:
        """Wait for deliveries and take what is there.

        Args:
            most: At the most so many.
        """
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
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
            await channel.send_acks(acks)

    async def stop_consuming(self) -> None:
        """Cancel the consumer; what was delivered stays here to be finished."""
        self._stopping = True
        channel = self._channel
        if channel is None or channel.is_closed or self._consumer_tag is None:
            return
        with suppress(aiormq.AMQPError, ConnectionError, TimeoutError):
            await channel.basic_cancel(self._consumer_tag, timeout=5)

    def waiting(self) -> int:
        """Deliveries that nobody has taken yet."""
        return len(self._inbox)

    def unacked(self) -> int:
        """Deliveries that the broker would give to another worker if this one died now."""
        return self._unacked


async def _unused_callback(_: Any) -> None:
    """Deliveries go to `on_delivery`; aiormq wants a callback all the same."""
