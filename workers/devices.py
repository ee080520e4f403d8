"""Keeps the table `devices` true: what the watcher of the adb servers sees, written when it changes and every few seconds.

Every Android worker does this for the servers it reaches; rows are keyed by the phone's own serial, so that several
workers write the same facts.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from contracts.database import AWAY
from contracts.logs import get_logger
from workers.android.adb import AdbServer
from workers.android.watch import DeviceFacts, watch

_REFRESH_SECONDS = 10.0

_UPSERT = """
with seen as (
  select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[],
    $9::timestamptz[])
  as t(serial, host, transport, state, hint, model, android_version, battery_percent, seen_at)
),
renamed as (
  delete from devices d using seen s where (d.host, d.transport) = (s.host, s.transport) and d.serial <> s.serial
)
insert into devices (serial, host, transport, state, hint, model, android_version, battery_percent, seen_at)
select * from seen order by 1
on conflict (serial) do update set host = excluded.host, transport = excluded.transport, state = excluded.state, hint = excluded.hint,
  model = coalesce(excluded.model, devices.model),
  android_version = coalesce(excluded.android_version, devices.android_version),
  battery_percent = coalesce(excluded.battery_percent, devices.battery_percent),
  seen_at = greatest(excluded.seen_at, devices.seen_at), updated_at = clock_timestamp()
"""


@asynccontextmanager
async def recorded_devices(servers: Sequence[AdbServer], database: Any) -> AsyncIterator[None]:
    """Record what the watcher sees while the block runs.

    Args:
        servers: The adb servers this worker reaches; with none, nothing is recorded.
        database: asyncpg pool.
    """
    if not servers:
        yield
        return
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_record(servers, database))
        try:
            yield
        finally:
            task.cancel()


async def _record(servers: Sequence[AdbServer], database: Any) -> None:
    log = get_logger()
    written: list[DeviceFacts] = []
    written_at = 0.0
    async for facts in watch(servers):
        due = time.monotonic() - written_at >= _REFRESH_SECONDS
        if not facts or (_changes(facts) == _changes(written) and not due):
            continue
        try:
            await _write(database, facts)
            written, written_at = facts, time.monotonic()
        except (asyncpg.PostgresError, *AWAY) as error:
            log.warning("postgres_unreachable", error=repr(error), doing="devices")


def _changes(facts: Sequence[DeviceFacts]) -> list[tuple[Any, ...]]:
    return [(one.serial, one.state, one.hint, one.adb_server, one.model, one.battery_percent) for one in facts]


async def _write(database: Any, facts: Sequence[DeviceFacts]) -> None:
    async with asyncio.timeout(10):
        await database.execute(
            _UPSERT,
            [one.serial for one in facts],
            [one.adb_server for one in facts],
            [one.transport_serial for one in facts],
            [one.state for one in facts],
            [one.hint for one in facts],
            [one.model for one in facts],
            [one.android_version for one in facts],
            [one.battery_percent for one in facts],
            [one.seen_at for one in facts],
        )
