"""Records accepted commands as `queued`, many in one statement, so that they can be found, listed and cancelled at once.

A worker may be first; then nothing is written. While PostgreSQL is away commands wait here, in bounded memory, and this
gateway answers for them. What does not fit is recorded by the worker that claims it.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from contracts.logs import get_logger
from contracts.metrics import UNRECORDED
from gateway import PUBLISHER
from gateway.database import Database, DatabaseAway, DataRefused
from gateway.identities import RENEW

_PATIENCE_SECONDS = 0.25
_SWEEP_SECONDS = 0.05
_WRITE_SECONDS = 3.0
_FLUSH_SECONDS = 3.0
_BATCH_ROWS = 500
_BATCH_BYTES = 4 * 1024 * 1024
_MAX_PENDING_BYTES = 64 * 1024 * 1024
_ROW_BYTES = 2048
"""What a pending command costs beside its payload; an estimate from above."""

# Same key, same day: the statements of `workers.claims` insert the same two rows, and whoever is second does nothing.
# `k` sees the keys that were there before this statement (reserved, or a worker's); `fresh` has those that it made.
# The publisher is a column: with a constant, a plan made on an empty table reads every key of that publisher.
# Returned are those whose key stood for a command that is not kept any more; nothing is recorded under such a key.
RECORD = """
with w as (
  select * from unnest($1::text[], $2::uuid[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::bool[], $13::timestamptz[], $14::timestamptz[])
  as t(publisher, id, fingerprint, kind, owner, routing_key, reply_to, correlation_id, traceparent, priority, payload,
    repeatable, accepted_at, deadline_at)
  order by 1, 2
),
fresh as (
  insert into command_keys (publisher, id, fingerprint) select publisher, id, fingerprint from w
  on conflict do nothing returning id
),
met as materialized (
  select w.*, k.day, k.fingerprint as known, k.id is null or is_kept(k.day) as kept
  from w left join command_keys k on k.publisher = w.publisher and k.id = w.id
),
recorded as (
  insert into commands (publisher, id, day, kind, owner, state, repeatable, routing_key, reply_to, correlation_id,
    traceparent, priority, payload, accepted_at, deadline_at)
  select publisher, id, coalesce(day, (now() at time zone 'utc')::date), kind, owner, 'queued', repeatable,
    routing_key, reply_to, correlation_id, traceparent, priority, payload, accepted_at, deadline_at
  from met
  where id in (select id from fresh) or known = fingerprint and kept
  order by publisher, id
  on conflict (publisher, id, day) do nothing
)
select publisher, id, fingerprint from met where not kept
"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command whose publish the broker has confirmed."""

    id: UUID
    fingerprint: bytes
    kind: str
    owner: str
    routing_key: str
    reply_to: str | None
    correlation_id: str | None
    traceparent: str | None
    priority: str | None
    payload: bytes
    repeatable: bool
    accepted_at: datetime
    deadline_at: datetime
    secret_body: bytes | None = field(default=None, repr=False)
    """What is published instead of the payload: that with its secrets, which are not recorded."""

    @property
    def size_bytes(self) -> int:
        """Memory it takes, about."""
        return len(self.payload) + _ROW_BYTES


class Recorder:
    """Writes accepted commands in the background.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: dict[UUID, Accepted] = {}
        self._pending_bytes = 0
        self._queue: deque[Accepted] = deque()
        self._waiting: dict[UUID, tuple[float, asyncio.Future[None]]] = {}
        self._wake = asyncio.Event()
        self._away = False

    def find(self, owner: str, command_id: UUID) -> Accepted | None:
        """A command that PostgreSQL may not know yet.

        Args:
            owner: Who asks; another's is not found.
            command_id: The command.
        """
        accepted = self._pending.get(command_id)
        return accepted if accepted is not None and accepted.owner == owner else None

    async def record(self, accepted: Accepted) -> None:
        """Record a command; returns when that is done, or when it is not worth waiting for any longer.

        Args:
            accepted: The command.
        """
        if accepted.id in self._pending:
            return
        if self._pending_bytes + accepted.size_bytes > _MAX_PENDING_BYTES:
            UNRECORDED.inc()
            return
        self._pending[accepted.id] = accepted
        self._pending_bytes += accepted.size_bytes
        self._queue.append(accepted)
        self._wake.set()
        if self._away:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[accepted.id] = (loop.time(), future)
        await future

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._release_impatient())
            delay_seconds = 0.1
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    if await self._write_next():
                        delay_seconds = 0.1
                        continue
                    await asyncio.sleep(delay_seconds)
                    delay_seconds = min(delay_seconds * 2, 2.0)

    async def flush(self) -> None:
        """Write what is left, for a few seconds at the most; call it when `run` has been cancelled."""
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                while self._queue and await self._write_next():
                    pass
        except TimeoutError:
            pass
        self._release(list(self._waiting))
        if self._queue:
            get_logger().warning("recording_given_up", commands=len(self._queue))

    async def _write_next(self) -> bool:
        """Write the oldest; whether PostgreSQL took them."""
        batch = self._take()
        try:
            await self._write(batch)
        except DatabaseAway:
            self._away = True
            self._queue.extendleft(reversed(batch))
            self._release(list(self._waiting))
            return False
        except BaseException:
            self._queue.extendleft(reversed(batch))
            self._release(list(self._waiting))
            self._wake.set()
            raise
        self._away = False
        for accepted in batch:
            del self._pending[accepted.id]
            self._pending_bytes -= accepted.size_bytes
        self._release([accepted.id for accepted in batch])
        return True

    def _take(self) -> list[Accepted]:
        batch: list[Accepted] = []
        size = 0
        while self._queue and len(batch) < _BATCH_ROWS and size < _BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += batch[-1].size_bytes
        return batch

    async def _write(self, batch: Sequence[Accepted]) -> None:
        try:
            await self._database.run(lambda one: _record(one, batch), timeout_seconds=_WRITE_SECONDS)
        except DataRefused as error:
            if len(batch) == 1:
                # its worker meets the same refusal, and ends it with a reply
                UNRECORDED.inc()
                get_logger().error("recording_refused", command_id=str(batch[0].id), error=str(error))
                return
            half = len(batch) // 2
            await self._write(batch[:half])
            await self._write(batch[half:])

    def _release(self, ids: Sequence[UUID]) -> None:
        for command_id in ids:
            entry = self._waiting.pop(command_id, None)
            if entry is not None and not entry[1].done():
                entry[1].set_result(None)

    async def _release_impatient(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            limit = loop.time() - _PATIENCE_SECONDS
            overdue: list[UUID] = []
            for command_id, (since, _) in self._waiting.items():
                if since > limit:
                    break
                overdue.append(command_id)
            self._release(overdue)


async def _record(connection: Any, batch: Sequence[Accepted]) -> None:
    forgotten = await connection.fetch(RECORD, *_columns(batch))
    if forgotten:
        await connection.execute(
            RENEW, *([row[name] for row in forgotten] for name in ("publisher", "id", "fingerprint"))
        )
        ids = {row["id"] for row in forgotten}
        await connection.fetch(RECORD, *_columns([one for one in batch if one.id in ids]))


def _columns(batch: Sequence[Accepted]) -> list[Any]:
    return [
        [PUBLISHER] * len(batch),
        [one.id for one in batch],
        [one.fingerprint for one in batch],
        [one.kind for one in batch],
        [one.owner for one in batch],
        [one.routing_key for one in batch],
        [one.reply_to for one in batch],
        [one.correlation_id for one in batch],
        [one.traceparent for one in batch],
        [one.priority for one in batch],
        [one.payload.decode() for one in batch],
        [one.repeatable for one in batch],
        [one.accepted_at for one in batch],
        [one.deadline_at for one in batch],
    ]
