"""Records accepted commands as `queued`, many in one statement, so that they can be found, listed and cancelled at once.

A worker may be first; then nothing is written. While PostgreSQL is away commands wait here, in bounded memory, and this
gateway answers for them. What does not fit is recorded by the worker that claims it.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from contracts.logs import get_logger
from contracts.metrics import UNRECORDED
from contracts.tables import COMMAND, FINGERPRINT, KEY, NEW_KEYS, RENEW_KEYS, CommandRow, Parameters, insert_commands
from gateway.services.database import Database, DatabaseAway, DataRefused

_PATIENCE_SECONDS = 0.25
_SWEEP_SECONDS = 0.05
_WRITE_SECONDS = 3.0
_FLUSH_SECONDS = 3.0
_BATCH_ROWS = 500
_BATCH_BYTES = 4 * 1024 * 1024
_MAX_PENDING_BYTES = 64 * 1024 * 1024
_ROW_BYTES = 2048
"""What a pending command costs beside its payload; an estimate from above."""

# Same key, same day: the statements of `workers.store.claims` insert the same two rows, and whoever is second does nothing.
# `k` sees the keys that were there before this statement (reserved, or a worker's); `fresh` has those that it made.
# The publisher is a column: with a constant, a plan made on an empty table reads every key of that publisher.
# Returned are those whose key stood for a command that is not kept any more; nothing is recorded under such a key.
RECORD = f"""
with w as (
  select * from {Parameters().unnest(COMMAND, FINGERPRINT)} order by publisher, id
),
{NEW_KEYS},
met as materialized (
  select w.*, k.day, k.fingerprint as known, k.id is null or is_kept(k.day) as kept
  from w left join command_keys k on k.publisher = w.publisher and k.id = w.id
),
recorded as (
  {insert_commands({"day": "coalesce(day, (now() at time zone 'utc')::date)", "state": "'queued'"})}
  from met
  where id in (select id from fresh) or known = fingerprint and kept
  order by publisher, id
  on conflict (publisher, id, day) do nothing
)
select publisher, id, fingerprint from met where not kept
"""  # noqa: S608  # only constants


class Recorder:
    """Writes accepted commands in the background.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: dict[UUID, CommandRow] = {}
        self._pending_bytes = 0
        self._queue: deque[CommandRow] = deque()
        self._waiting: dict[UUID, tuple[float, asyncio.Future[None]]] = {}
        self._wake = asyncio.Event()
        self._away = False

    def find(self, owner: str, command_id: UUID) -> CommandRow | None:
        """A command that PostgreSQL may not know yet.

        Args:
            owner: Who asks; another's is not found.
            command_id: The command.
        """
        accepted = self._pending.get(command_id)
        return accepted if accepted is not None and accepted.envelope.owner == owner else None

    async def record(self, accepted: CommandRow) -> None:
        """Record a command; returns when that is done, or when it is not worth waiting for any longer.

        Args:
            accepted: The command.
        """
        if accepted.envelope.id in self._pending:
            return
        if self._pending_bytes + _size_bytes(accepted) > _MAX_PENDING_BYTES:
            UNRECORDED.inc()
            return
        self._pending[accepted.envelope.id] = accepted
        self._pending_bytes += _size_bytes(accepted)
        self._queue.append(accepted)
        self._wake.set()
        if self._away:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[accepted.envelope.id] = (loop.time(), future)
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
            del self._pending[accepted.envelope.id]
            self._pending_bytes -= _size_bytes(accepted)
        self._release([accepted.envelope.id for accepted in batch])
        return True

    def _take(self) -> list[CommandRow]:
        batch: list[CommandRow] = []
        size = 0
        while self._queue and len(batch) < _BATCH_ROWS and size < _BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += _size_bytes(batch[-1])
        return batch

    async def _write(self, batch: Sequence[CommandRow]) -> None:
        try:
            await self._database.run(lambda one: record(one, batch), timeout_seconds=_WRITE_SECONDS)
        except DataRefused as error:
            if len(batch) == 1:
                # its worker meets the same refusal, and ends it with a reply
                UNRECORDED.inc()
                get_logger().error("recording_refused", command_id=str(batch[0].envelope.id), error=str(error))
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


async def record(connection: Any, batch: Sequence[CommandRow]) -> None:
    """Record commands as `queued`, unless there is a row already or their id stands for another body.

    Args:
        connection: In no transaction.
        batch: Commands with different ids.
    """
    forgotten = await connection.fetch(RECORD, *COMMAND.arrays(batch), *FINGERPRINT.arrays(batch))
    if forgotten:
        ids = {row["id"] for row in forgotten}
        rows = [one for one in batch if one.envelope.id in ids]
        await connection.execute(RENEW_KEYS, *KEY.arrays(rows))
        await connection.fetch(RECORD, *COMMAND.arrays(rows), *FINGERPRINT.arrays(rows))


def _size_bytes(row: CommandRow) -> int:
    """Memory that it takes, about."""
    return len(row.payload) + _ROW_BYTES
