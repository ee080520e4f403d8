"""aiormq's channel for consuming: deliveries are handed over without a task for each, and acks leave in one write."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp import commands as spec
from pamqp import frame as amqp_frame
from typing_extensions import override


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
