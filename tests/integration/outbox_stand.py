"""What the outbox worker's tests share: rows to start from, queues to read, and the worker itself in this process."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import orjson

from contracts.amqp.broker import connect
from contracts.amqp.publisher import Publisher
from contracts.commands import KINDS, fingerprint
from contracts.database import open_pool
from contracts.settings import Settings
from contracts.topology import DEAD, REPLIES, ROUTING_KEYS, UNROUTED, WORK_QUEUES, reply_queue
from ops.stack.session import Session
from workers.outbox.housekeeping import Retention
from workers.pools.outbox import run

RELAY_BODY = orjson.dumps({"sender": "user", "message": "hello", "timestamp": "2026-01-01T00:00:00Z"})
TAP_BODY = orjson.dumps({"action": "tap", "x": 1, "y": 2})

_COMMAND = """
insert into commands (publisher, id, day, kind, owner, state, attempt, token, holder, repeatable, routing_key, reply_to,
  correlation_id, payload, accepted_at, deadline_at, started_at, retry_at)
values ($1, $2, (now() at time zone 'utc')::date, $3, $1, $4, $5, nextval('token_seq'), $6, $7, $8, $9, 'c-1', $10, $11,
  $12, $13, $14)
"""
_OUTBOX = """
insert into outbox (token, part, publisher, id, kind, status, owner, reply_to, correlation_id, body, accepted_at,
  deadline_at, created_at, not_before, priority)
values (nextval('token_seq'), $1, $2, $3, $4, $5, $2, $6, 'c-1', $7, now(), now() + interval '1 hour', $8, $8, $9)
"""


def retention(**days: int) -> Retention:
    """What is kept for how many days: 30 unless said."""
    kept = dict.fromkeys(("commands", "artifacts", "messages", "audit_log", "api_keys", "targets", "devices"), 30)
    return Retention(**{**kept, **days})


async def until(what: str, condition: Callable[[], Awaitable[Any]], *, seconds: float = 60) -> Any:
    """Wait until a condition holds and return what it gave; fails with what it waited for."""
    deadline = time.monotonic() + seconds
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)


@dataclass(slots=True)
class Stand:
    """Real services with one connection pool as the outbox worker's role and one as the owner of the tables."""

    services: Session
    database: Any
    owner: Any
    publisher: Publisher
    name: str = field(default_factory=lambda: f"p{uuid4().hex[:12]}")
    """An outside publisher of this test alone, also the owner of its commands."""

    @property
    def reply_to(self) -> str:
        """Its reply queue."""
        return reply_queue(self.name)

    def settings(self, **overrides: Any) -> Settings:
        """An outbox worker's settings, with short waits."""
        values = {
            "amqp_url": self.services.amqp_url("outbox"),
            "postgres_url": self.services.postgres_url("ish_outbox"),
            "outbox_after_seconds": 0.2,
            "stop_grace_seconds": 1,
            "delivery_allow_http": True,
            "delivery_allow_private": True,
        }
        return Settings(**{**values, **overrides})

    async def command(
        self,
        state: str,
        *,
        kind: str = "relay",
        body: bytes = RELAY_BODY,
        attempt: int = 0,
        holder: UUID | None = None,
        repeatable: bool = True,
        deadline: timedelta = timedelta(hours=1),
        retry: timedelta | None = None,
        accepted: timedelta = timedelta(0),
    ) -> UUID:
        """Record a command; times are from now."""
        id_, now = uuid4(), datetime.now(UTC)
        await self.owner.execute(
            "insert into command_keys (publisher, id, fingerprint) values ($1, $2, $3)",
            self.name,
            id_,
            fingerprint(kind, body),
        )
        await self.owner.execute(
            _COMMAND,
            self.name,
            id_,
            kind,
            state,
            attempt,
            holder,
            repeatable,
            ROUTING_KEYS[KINDS[kind].queue],
            self.reply_to,
            body.decode(),
            now + accepted,
            now + deadline,
            now + accepted if attempt else None,
            now + retry if retry is not None else None,
        )
        return id_

    async def worker(self, *, silent_for: timedelta) -> UUID:
        """A worker's row whose heartbeat is so old."""
        incarnation = uuid4()
        await self.owner.execute(
            "insert into workers (incarnation, pool, host, pid, version, metrics_port, started_at, heartbeat_at) "
            "values ($1, 'relay', 'h', 1, 'v', 1, $2, $2)",
            incarnation,
            datetime.now(UTC) - silent_for,
        )
        return incarnation

    async def unsent(
        self,
        *,
        status: str | None = "succeeded",
        part: int = 0,
        kind: str = "relay",
        body: bytes = b'{"status":"succeeded"}',
        reply: bool = True,
        priority: str | None = None,
        age: timedelta = timedelta(minutes=1),
    ) -> UUID:
        """A row of the outbox so old."""
        id_ = uuid4()
        await self.owner.execute(
            _OUTBOX,
            part,
            self.name,
            id_,
            kind,
            status,
            self.reply_to if reply else None,
            body.decode(),
            datetime.now(UTC) - age,
            priority,
        )
        return id_

    async def row(self, id_: UUID) -> Any:
        """A command's row; None when there is none."""
        return await self.owner.fetchrow("select * from commands where publisher = $1 and id = $2", self.name, id_)

    async def has_ended(self, id_: UUID) -> Any:
        """A command's row once it is terminal."""
        return await self.owner.fetchrow(
            "select * from commands where publisher = $1 and id = $2 and finished_at is not null", self.name, id_
        )

    async def outbox_rows(self) -> list[Any]:
        """This publisher's rows of the outbox."""
        return list(await self.owner.fetch("select * from outbox where publisher = $1", self.name))

    async def dead_letters(self) -> list[Any]:
        """This publisher's dead letters."""
        return list(await self.owner.fetch("select * from dead_letters where publisher = $1 order by seq", self.name))

    async def make_reply_queue(self, **arguments: Any) -> None:
        """The publisher's reply queue."""
        async with await connect(self.services.amqp_url("admin"), name="test") as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(
                self.reply_to, durable=True, arguments={"x-queue-type": "quorum", **arguments}
            )
            await queue.bind(REPLIES, routing_key=self.reply_to)

    async def take(self, queue: str) -> aio_pika.abc.AbstractIncomingMessage | None:
        """One message of a queue, acked; None when it is empty or missing."""
        async with await connect(self.services.amqp_url("admin"), name="test") as connection:
            channel = await connection.channel()
            found = await channel.get_queue(queue, ensure=False)
            message = await found.get(fail=False, timeout=10)
            if message is not None:
                await message.ack()
            return message

    async def depth(self, queue: str) -> int:
        """Messages ready in a queue."""
        async with await connect(self.services.amqp_url("admin"), name="test") as connection:
            channel = await connection.channel()
            found = await channel.declare_queue(queue, passive=True)
            return found.declaration_result.message_count or 0

    async def purge(self, *queues: str) -> None:
        """Empty queues."""
        async with await connect(self.services.amqp_url("admin"), name="test") as connection:
            channel = await connection.channel()
            for queue in queues:
                await (await channel.get_queue(queue, ensure=False)).purge()

    async def delete(self, queue: str) -> None:
        """Delete a queue with what is in it."""
        async with await connect(self.services.amqp_url("admin"), name="test") as connection:
            await (await connection.channel()).queue_delete(queue)

    @asynccontextmanager
    async def running(self, **overrides: Any) -> AsyncIterator[None]:
        """The outbox worker, in this process, until the block ends."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run(self.settings(**overrides), stop))
            try:
                yield
            finally:
                stop.set()
                async with asyncio.timeout(60):
                    await task


@asynccontextmanager
async def stand(services: Session) -> AsyncIterator[Stand]:
    """Open a stand."""
    database = await open_pool(services.postgres_url("ish_outbox"), size=4, name="test outbox")
    owner = await open_pool(services.postgres_url("ish_owner"), size=4, name="test owner")
    publisher = Publisher(services.amqp_url("outbox"), name="test outbox", timeout_seconds=30)
    async with asyncio.TaskGroup() as group:
        keeping_open = group.create_task(publisher.run())

        async def is_open() -> bool:
            return publisher.is_open

        await until("the publisher is open", is_open)
        one = Stand(services, database, owner, publisher)
        try:
            yield one
        finally:
            keeping_open.cancel()
            # the services are shared with every other test
            await one.purge(*WORK_QUEUES, DEAD, UNROUTED)
            await owner.execute("delete from outbox where publisher = $1", one.name)
            await owner.execute("delete from commands where publisher = $1 and finished_at is null", one.name)
    await database.close()
    await owner.close()
