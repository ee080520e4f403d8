"""Leases of phones: the statements that say who holds which, each beside its function.

A lease is a row with its holder's incarnation and a token. It is good for as long as that worker's heartbeat is: a
holder whose heartbeat is older than the lease has lost its phones together with its commands. The token rises with every
new holder; the phone itself keeps the newest and refuses lines that carry another.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from workers.android.monitor.devices import DeviceFacts
from workers.android.monitor.watch import FORGOTTEN_AFTER

_WORKERS = """
select incarnation from workers
where pool = 'android' and stopped_at is null and heartbeat_at > clock_timestamp() - $1::interval
order by 1
"""
_LEASES = """
select l.serial, l.holder, l.token, coalesce(x.heartbeat_at > clock_timestamp() - $1::interval, false) as alive
from device_leases l left join lateral (
  select w.heartbeat_at from workers w where w.incarnation = l.holder offset 0
) x on true
"""
# Every holder writes its phones again within 10 seconds; an older row says nothing any more.
_DEVICES = """
select serial, host, transport, state, hint, model, android_version, battery_percent, screen, seen_at, reported_serial, tags, queue_depth,
  updated_at > clock_timestamp() - interval '30 s' as fresh
from devices where seen_at > clock_timestamp() - $1::interval
"""
# A dead holder's running commands are fenced in the same moment: what it still writes is refused from now on, and the
# next delivery of each finds it free. `skip locked`: who else has such a row is taking it over, which does the same.
_TAKE = """
with dead as materialized (
  select l.serial, l.holder from unnest($1::text[]) s(serial) join device_leases l on l.serial = s.serial
  left join lateral (select w.heartbeat_at from workers w where w.incarnation = l.holder offset 0) x on true
  where x.heartbeat_at is null or x.heartbeat_at < clock_timestamp() - $3::interval
),
taken as (
  insert into device_leases (serial, holder, token)
  select s.serial, $2, nextval('token_seq') from unnest($1::text[]) s(serial)
  where s.serial in (select serial from dead) or not exists (select from device_leases l where l.serial = s.serial)
  order by 1
  on conflict (serial) do update set holder = excluded.holder, token = excluded.token, taken_at = clock_timestamp()
  where device_leases.holder in (select holder from dead)
  returning serial, token
),
lost as materialized (
  select c.publisher, c.id, c.day from commands c
  where c.state = 'running' and c.kind = 'android.execute' and c.holder in (select holder from dead)
  for update skip locked
),
fenced as (
  update commands c set token = nextval('token_seq'), holder = null from lost
  where (c.publisher, c.id, c.day) = (lost.publisher, lost.id, lost.day)
)
select serial, token from taken
"""
_RELEASE = """
delete from device_leases l using unnest($2::text[], $3::bigint[]) r(serial, token)
where l.serial = r.serial and l.token = r.token and l.holder = $1
"""
_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a phone."""

    holder: UUID
    token: int
    alive: bool
    """Whether the holder's heartbeat is fresh."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A phone as its holder wrote it down."""

    facts: DeviceFacts
    tags: frozenset[str]
    queue_depth: int | None
    """Commands that wait for it or run on it; None when nobody consumes its queue."""
    fresh: bool
    """Whether it was written lately."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is on record of workers and phones at one moment."""

    workers: tuple[UUID, ...] = ()
    """Android workers that live, in the same order for everybody."""
    leases: Mapping[str, Lease] = field(default_factory=dict)
    phones: Mapping[str, Recorded] = field(default_factory=dict)

    def is_held(self, serial: str) -> bool:
        """Whether a worker that lives holds this phone.

        Args:
            serial: The phone.
        """
        lease = self.leases.get(serial)
        return lease is not None and lease.alive


async def read_picture(database: Any, *, lease_seconds: float) -> Picture:
    """Look at everything once.

    Args:
        database: asyncpg pool.
        lease_seconds: Age of a heartbeat at which its worker is gone.
    """
    lease = timedelta(seconds=lease_seconds)
    async with database.acquire(timeout=_SECONDS) as connection:
        workers = await connection.fetch(_WORKERS, lease, timeout=_SECONDS)
        leases = await connection.fetch(_LEASES, lease, timeout=_SECONDS)
        devices = await connection.fetch(_DEVICES, FORGOTTEN_AFTER, timeout=_SECONDS)
    return Picture(
        tuple(row["incarnation"] for row in workers),
        {row["serial"]: Lease(row["holder"], row["token"], row["alive"]) for row in leases},
        {row["serial"]: _recorded(row) for row in devices},
    )


def _recorded(row: Any) -> Recorded:
    facts = DeviceFacts(
        serial=row["serial"],
        adb_server=row["host"],
        transport_serial=row["transport"],
        state=row["state"],
        hint=row["hint"],
        model=row["model"],
        android_version=row["android_version"],
        battery_percent=row["battery_percent"],
        screen=row["screen"],
        seen_at=row["seen_at"],
        reported_serial=row["reported_serial"],
    )
    return Recorded(facts, frozenset(row["tags"]), row["queue_depth"], row["fresh"])


async def take(database: Any, serials: Collection[str], *, holder: UUID, lease_seconds: float) -> dict[str, int]:
    """Take phones that are free, or whose holder is dead.

    Args:
        database: asyncpg pool.
        serials: Phones.
        holder: This worker's incarnation.
        lease_seconds: Age of a heartbeat at which its worker is gone.

    Returns:
        The new tokens of those that were got, by serial.
    """
    async with database.acquire(timeout=_SECONDS) as connection:
        rows = await connection.fetch(_TAKE, list(serials), holder, timedelta(seconds=lease_seconds), timeout=_SECONDS)
    return {row["serial"]: row["token"] for row in rows}


async def release(database: Any, tokens: Mapping[str, int], *, holder: UUID) -> None:
    """Give phones back; what was taken over meanwhile is left alone.

    Args:
        database: asyncpg pool.
        tokens: By serial.
        holder: The incarnation that took them.
    """
    async with database.acquire(timeout=_SECONDS) as connection:
        await connection.execute(_RELEASE, holder, list(tokens), list(tokens.values()), timeout=_SECONDS)
