"""Keeps the table `devices` true: what is seen of each phone, written when it changes and every few seconds.

A phone is written by the worker that holds it; one that nobody holds, by whoever sees it. Rows are keyed by the phone's
name, so that several workers write the same facts.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workers.android.monitor.devices import DeviceFacts

_REFRESH_SECONDS = 10.0
_WRITE_SECONDS = 10.0

# A phone that is known to be another's may have left its address to this one; a nameless one has got its name now.
_UPSERT = """
with seen as (
  select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[],
    $9::text[], $10::timestamptz[], $11::int[], $12::text[])
  as t(serial, host, transport, state, hint, model, android_version, battery_percent, screen, seen_at, queue_depth,
    reported_serial)
),
moved as (
  update devices d set transport = '', state = 'offline' from seen s
  where (d.host, d.transport) = (s.host, s.transport) and d.model is not null
    and d.serial not in (select serial from seen)
),
renamed as (
  delete from devices d using seen s
  where (d.host, d.transport) = (s.host, s.transport) and d.model is null
    and d.serial not in (select serial from seen)
)
insert into devices (serial, host, transport, state, hint, model, android_version, battery_percent, screen, seen_at,
  queue_depth, reported_serial)
select * from seen order by 1
on conflict (serial) do update set host = excluded.host, transport = excluded.transport, state = excluded.state,
  hint = excluded.hint,
  model = coalesce(excluded.model, devices.model),
  android_version = coalesce(excluded.android_version, devices.android_version),
  battery_percent = coalesce(excluded.battery_percent, devices.battery_percent),
  screen = coalesce(excluded.screen, devices.screen),
  reported_serial = coalesce(excluded.reported_serial, devices.reported_serial),
  seen_at = greatest(excluded.seen_at, devices.seen_at), queue_depth = excluded.queue_depth,
  updated_at = clock_timestamp()
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A phone as it is to be written down."""

    facts: DeviceFacts
    queue_depth: int | None

    @property
    def news(self) -> tuple[Any, ...]:
        """What is written at once when it changes."""
        one = self.facts
        return (
            one.state, one.hint, one.adb_server, one.transport_serial, one.model, one.battery_percent, one.screen,
            self.queue_depth,
        )  # fmt: skip


class Recorder:
    """Writes phones down.

    Args:
        database: asyncpg pool.
    """

    def __init__(self, database: Any) -> None:
        self._database = database
        self._written: dict[str, tuple[tuple[Any, ...], float]] = {}

    async def record(self, phones: Sequence[Seen]) -> None:
        """Write what has changed, and what was not written for some seconds.

        Args:
            phones: Those that are this worker's to write.

        Raises:
            asyncpg.PostgresError, OSError, TimeoutError: Postgres is away.
        """
        now = time.monotonic()
        due = [one for one in phones if self._is_due(one, now)]
        if due:
            await self._write(due)
        self._written = {
            one.facts.serial: (one.news, now) if one in due else self._written[one.facts.serial] for one in phones
        }

    def _is_due(self, one: Seen, now: float) -> bool:
        news, at = self._written.get(one.facts.serial, (None, 0.0))
        return news != one.news or now - at >= _REFRESH_SECONDS

    async def _write(self, phones: Sequence[Seen]) -> None:
        facts = [one.facts for one in phones]
        async with self._database.acquire(timeout=_WRITE_SECONDS) as connection:
            await connection.execute(
                _UPSERT,
                [one.serial for one in facts],
                [one.adb_server for one in facts],
                [one.transport_serial for one in facts],
                [one.state for one in facts],
                [one.hint for one in facts],
                [one.model for one in facts],
                [one.android_version for one in facts],
                [one.battery_percent for one in facts],
                [one.screen for one in facts],
                [one.seen_at for one in facts],
                [one.queue_depth for one in phones],
                [one.reported_serial for one in facts],
                timeout=_WRITE_SECONDS,
            )
