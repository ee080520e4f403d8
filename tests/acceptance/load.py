"""Steady load, over HTTP and over AMQP, that goes on through faults and remembers what was accepted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import uuid4

import aio_pika
import httpx
from aio_pika.abc import AbstractConnection, AbstractExchange

from tests.acceptance.outsider import Account, Outsider

RELAY = {"sender": "user", "message": "hello", "timestamp": "2025-01-01T00:00:00Z"}
_AT_ONCE = 200
_CONFIRM_SECONDS = 5.0


@dataclass(slots=True)
class Sent:
    """What became of a load's commands."""

    accepted: list[str] = field(default_factory=list)
    """Ids that got a 202 or a confirm: each of them must finish."""
    refused: list[httpx.Response] = field(default_factory=list)
    unknown: int = 0
    """Publishes without an answer: such a command may exist or not."""


@asynccontextmanager
async def posting(client: httpx.AsyncClient, *, per_second: float) -> AsyncIterator[Sent]:
    """Post relays at this rate while the block runs; at its end all are answered."""
    sent = Sent()

    async def post() -> None:
        answer = await client.post("/api/relay", json=RELAY)
        if answer.status_code == httpx.codes.ACCEPTED:
            sent.accepted.append(answer.json()["id"])
        else:
            sent.refused.append(answer)

    async with _steadily(post, per_second=per_second):
        yield sent


@asynccontextmanager
async def publishing(account: Account, *, per_second: float) -> AsyncIterator[Sent]:
    """Publish relays as an outside system does: confirmed, and with a new connection whenever the old one is lost."""
    sent, line = Sent(), _Line(account)

    async def publish() -> None:
        id_ = str(uuid4())
        try:
            async with asyncio.timeout(_CONFIRM_SECONDS):
                await line.publish(id_)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001  # aiormq ends waits by a bare Exception, or cancels
            sent.unknown += 1
        else:
            sent.accepted.append(id_)

    try:
        async with _steadily(publish, per_second=per_second):
            yield sent
    finally:
        await line.close()


class _Line:
    """A publisher's connection, opened again on the publish that finds it closed."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._opening = asyncio.Lock()

    async def publish(self, id_: str) -> None:
        async with self._opening:
            exchange = self._exchange or await self._open()
        command = Outsider(self._account.name, self._account.url, exchange).command("relay.v1", RELAY, message_id=id_)
        try:
            await exchange.publish(command, routing_key="relay", mandatory=True)
        except BaseException:
            # aio-pika does not always see that a connection is dead; one that others have opened since is not given up
            if self._exchange is exchange:
                self._exchange = None
            raise

    async def _open(self) -> AbstractExchange:
        await self.close()
        self._connection = await aio_pika.connect(self._account.url, timeout=_CONFIRM_SECONDS)
        channel = await self._connection.channel(publisher_confirms=True)
        self._exchange = await channel.get_exchange("ish.commands", ensure=False)
        return self._exchange

    async def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                await self._connection.close()
        self._connection = self._exchange = None


@asynccontextmanager
async def _steadily(act: Callable[[], Awaitable[None]], *, per_second: float) -> AsyncIterator[None]:
    """Begin an act at this rate while the block runs; at its end wait until all are done."""
    stop, free = asyncio.Event(), asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with free:
            await act()

    async def pace(group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not stop.is_set():
            group.create_task(one())
            due += 1 / per_second
            await asyncio.sleep(max(0.0, due - loop.time()))

    async with asyncio.TaskGroup() as group:
        group.create_task(pace(group))
        try:
            yield
        finally:
            stop.set()
