"""Another system that uses ISH Chat through the broker alone: plain aio-pika and nothing of ours."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractExchange, AbstractIncomingMessage

_CONFIRM_SECONDS = 30.0

KEYS = {"relay.v1": "relay", "ai.send.v1": "ai.send", "android.execute.v1": "android.execute"}
"""Each type's routing key, as the AsyncAPI document gives it."""


@dataclass(frozen=True, slots=True)
class Account:
    """An outside publisher's name and its address, as `ish publishers add` prints it."""

    name: str
    url: str

    @property
    def reply_queue(self) -> str:
        """Where its results go."""
        return f"reply.{self.name}"


@dataclass(slots=True)
class Outsider:
    """A connected publisher, and the replies it got."""

    name: str
    url: str
    exchange: AbstractExchange
    replies: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """Bodies of the results received so far, by message id."""

    def command(self, type_: str, body: Any, **properties: Any) -> aio_pika.Message:
        """A command as another system would write it; properties given replace the usual ones."""
        usual: dict[str, Any] = {
            "message_id": str(uuid4()),
            "type": type_,
            "user_id": self.name,
            "reply_to": f"reply.{self.name}",
            "content_type": "application/json",
            "delivery_mode": aio_pika.DeliveryMode.PERSISTENT,
        }
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return aio_pika.Message(content, **usual | properties)

    async def publish(self, message: aio_pika.Message, *, key: str | None = None) -> str:
        """Publish one command, mandatory, and wait for its confirm; returns its id."""
        async with asyncio.timeout(_CONFIRM_SECONDS):
            await self.exchange.publish(message, routing_key=key or KEYS[str(message.type)], mandatory=True)
        return str(message.message_id)

    async def publish_all(self, messages: Sequence[aio_pika.Message]) -> list[str]:
        """Publish several at once; returns their ids, in order."""
        return list(await asyncio.gather(*(self.publish(message) for message in messages)))

    def answered(self, ids: Sequence[str]) -> bool:
        """Whether each of these has a reply."""
        return all(self.replies.get(one) for one in ids)

    def reply(self, id_: str) -> dict[str, Any]:
        """The result of a command; every reply to it must be the same, byte for byte."""
        bodies = set(self.replies[id_])
        assert len(bodies) == 1, f"{len(bodies)} different replies to {id_}"
        document: dict[str, Any] = json.loads(bodies.pop())
        return document


@asynccontextmanager
async def connected(account: Account) -> AsyncIterator[Outsider]:
    """Connect as this publisher and collect its replies while the block runs."""
    connection: AbstractConnection = await aio_pika.connect(account.url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange("ish.commands", ensure=False)
        it = Outsider(account.name, account.url, exchange)

        async def collect(message: AbstractIncomingMessage) -> None:
            it.replies[message.message_id or ""].append(message.body)
            await message.ack()

        queue = await (await connection.channel()).get_queue(account.reply_queue, ensure=False)
        await queue.consume(collect)
        yield it
