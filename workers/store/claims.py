"""Claims: who runs a command. The statements that decide it, each beside its function.

A claim writes `running` with a new token and this worker's incarnation. A holder whose heartbeat is older than the lease
is gone, and its commands are taken over (the attempt is counted); one that lives is left alone. Every statement
autocommits and takes its rows in key order, so that two batches with the same keys cannot deadlock.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any
from uuid import UUID

from contracts.tables import COMMAND, FINGERPRINT, KEY, NEW_KEYS, RENEW_KEYS, Parameters, insert_commands
from workers.stages import Admitted, Claimed, Key


class Verdict(Enum):
    """Why a command was not claimed."""

    TERMINAL = auto()
    """It has ended; its stored reply is sent again."""
    ID_REUSED = auto()
    """The same id came with another body."""
    EARLY = auto()
    """It waits for its next try."""
    HELD = auto()
    """Another worker, which lives, is running it."""
    FORGOTTEN = auto()
    """Its id stood for a command that is not kept any more: it is a new command."""
    SUSPECT = auto()
    """It was in flight in several crashes: it is to be claimed when nothing else is in flight."""


@dataclass(slots=True)
class NotClaimed:
    """A command that this worker does not run now."""

    admitted: Admitted
    verdict: Verdict
    state: str | None = None
    result: str | None = None
    retry_at: datetime | None = None


_NEW = Parameters()
# Keys that the gateway reserved and has no row for yet are claimed here too: their day is read, a new one's is today.
_CLAIM_NEW = f"""
with w as (
  select * from {_NEW.unnest(COMMAND, FINGERPRINT)} order by publisher, id
),
{NEW_KEYS}
{
    insert_commands(
        {
            "day": "coalesce(k.day, (now() at time zone 'utc')::date)",
            "state": "'running'",
            "attempt": "1",
            "token": "nextval('token_seq')",
            "holder": _NEW.one("uuid"),
            "started_at": "clock_timestamp()",
        }
    )
}
from w left join lateral (
  select k.day from command_keys k
  where k.publisher = w.publisher and k.id = w.id and k.fingerprint = w.fingerprint and is_kept(k.day) offset 0
) k on true
where k.day is not null or (publisher, id) in (select publisher, id from fresh)
order by publisher, id
on conflict (publisher, id, day) do nothing
returning publisher, id, day, attempt, crashes, token, calls, started_at, accepted_at, deadline_at
"""  # noqa: S608  # only constants

# Plain read first; only rows that look claimable are locked, and `skip locked` leaves those that another batch has.
_CLAIM_KNOWN = """
with w as (
  select * from unnest($1::text[], $2::uuid[], $3::bytea[]) as t(publisher, id, fingerprint)
),
seen as materialized (
  select w.publisher, w.id, k.day, k.fingerprint = w.fingerprint as same, is_kept(k.day) as kept, c.state, c.result,
    c.retry_at
  from w cross join lateral (
    select k.day, k.fingerprint from command_keys k where k.publisher = w.publisher and k.id = w.id offset 0
  ) k left join lateral (
    select c.state, c.result, c.retry_at from commands c
    where c.publisher = w.publisher and c.id = w.id and c.day = k.day offset 0
  ) c on true
),
cur as materialized (
  select c.publisher, c.id, c.day, c.state, c.holder, c.token, c.repeatable, c.retry_at, c.crashes, c.error_code,
    c.cancel_requested_at
  from (
    select publisher, id, day from seen where same and state in ('queued', 'retrying', 'running') order by 1, 2 offset 0
  ) s cross join lateral (
    select * from commands c where c.publisher = s.publisher and c.id = s.id and c.day = s.day for update skip locked
  ) c
),
dead as materialized (
  select h.holder from (select distinct holder from cur where state = 'running') h
  left join lateral (select x.heartbeat_at from workers x where x.incarnation = h.holder offset 0) x on true
  where x.heartbeat_at is null or x.heartbeat_at < clock_timestamp() - $4::interval
),
-- a token of this worker's own that it does not run is of a claim whose answer was lost: nothing was begun. $8 has all
-- of its incarnations: such an answer may have been lost together with its heartbeats.
free as materialized (
  select *, state = 'running' and (holder is null or holder <> all ($8::uuid[])) as crashed from cur
  where state = 'queued'
    or state = 'retrying' and (cancel_requested_at is not null or retry_at is null or retry_at <= clock_timestamp() + interval '500 ms')
    or state = 'running' and (
      holder in (select holder from dead) and holder <> all ($8::uuid[]) or holder is null
      or holder = any ($8::uuid[]) and token <> all ($6::bigint[]))
),
claimed as (
  update commands c set state = 'running', attempt = c.attempt + 1, token = nextval('token_seq'), holder = $5,
    crashes = c.crashes + free.crashed::int, retry_at = null, started_at = coalesce(c.started_at, clock_timestamp())
  from free
  where (c.publisher, c.id, c.day) = (free.publisher, free.id, free.day)
    and ($7::int is null or free.crashes + free.crashed::int <= $7)
  returning c.publisher, c.id, c.day, c.attempt, c.crashes, c.token, c.calls, c.started_at, c.accepted_at, c.deadline_at,
    free.crashed as taken_over, free.crashed and not free.repeatable as interrupted, free.error_code,
    free.cancel_requested_at is not null as cancel_requested
)
select s.publisher, s.id, s.day, s.same, s.kept, s.state, s.result, s.retry_at, free.id is not null as free,
  c.token, c.attempt, c.crashes, c.calls, c.started_at, c.accepted_at, c.deadline_at, c.taken_over, c.interrupted,
  c.error_code, c.cancel_requested
from seen s left join free using (publisher, id) left join claimed c using (publisher, id)
"""


async def claim(
    connection: Any,
    batch: Sequence[Admitted],
    *,
    holder: UUID,
    lease_seconds: float,
    in_flight: Collection[int],
    former: Collection[UUID] = (),
    max_crashes: int | None = None,
) -> tuple[list[Claimed], list[NotClaimed]]:
    """Claim what can be claimed of a batch.

    Args:
        connection: In no transaction; each statement commits by itself.
        batch: Commands with different keys, none of them in flight in this process.
        holder: This worker's incarnation.
        lease_seconds: Age of a heartbeat at which its worker is gone.
        in_flight: Tokens that this worker is running now; what it holds beside them it has forgotten, and takes again.
        former: Incarnations that this worker had before.
        max_crashes: What was in flight in more crashes is left for a claim of its own; None claims any.

    Returns:
        What this worker now runs, and what it does not, with the reason.
    """
    by_key = {one.key: one for one in batch}
    rows = await _claim_new(connection, batch, holder)
    claimed = [_claimed(by_key.pop((row["publisher"], row["id"])), row) for row in rows]
    if not by_key:
        return claimed, []
    known, left = await claim_known(
        connection,
        list(by_key.values()),
        holder=holder,
        lease_seconds=lease_seconds,
        in_flight=in_flight,
        former=former,
        max_crashes=max_crashes,
    )
    new = [other.admitted for other in left if other.verdict is Verdict.FORGOTTEN]
    if new:
        # renewed, they have a key of today and no row: claimed as what the gateway has reserved is
        await connection.execute(RENEW_KEYS, *KEY.arrays(one.row for one in new))
        rows = await _claim_new(connection, new, holder)
        by_key = {one.key: one for one in new}
        known += [_claimed(by_key.pop((row["publisher"], row["id"])), row) for row in rows]
        left = [other for other in left if other.verdict is not Verdict.FORGOTTEN]
        left += [NotClaimed(admitted, Verdict.HELD) for admitted in by_key.values()]  # another worker was quicker
    return claimed + known, left


async def _claim_new(connection: Any, batch: Sequence[Admitted], holder: UUID) -> list[Any]:
    rows = [one.row for one in batch]
    claimed: list[Any] = await connection.fetch(_CLAIM_NEW, *COMMAND.arrays(rows), *FINGERPRINT.arrays(rows), holder)
    return claimed


async def claim_known(
    connection: Any,
    batch: Sequence[Admitted],
    *,
    holder: UUID,
    lease_seconds: float,
    in_flight: Collection[int],
    former: Collection[UUID] = (),
    max_crashes: int | None = None,
) -> tuple[list[Claimed], list[NotClaimed]]:
    """Claim commands that have a row already: recorded by the gateway, waiting, forgotten or left by a dead worker.

    Args:
        connection: As in `claim`.
        batch: As in `claim`.
        holder: As in `claim`.
        lease_seconds: As in `claim`.
        in_flight: As in `claim`.
        former: As in `claim`.
        max_crashes: As in `claim`.
    """
    by_key: dict[Key, Admitted] = {one.key: one for one in batch}
    keys = sorted(by_key)
    rows = await connection.fetch(
        _CLAIM_KNOWN,
        [publisher for publisher, _ in keys],
        [id_ for _, id_ in keys],
        [by_key[key].fingerprint for key in keys],
        timedelta(seconds=lease_seconds),
        holder,
        list(in_flight),
        max_crashes,
        [holder, *former],
    )
    claimed: list[Claimed] = []
    left: list[NotClaimed] = []
    for row in rows:
        admitted = by_key.pop((row["publisher"], row["id"]))
        if row["token"] is not None:
            one = _claimed(admitted, row)
            one.taken_over, one.interrupted, one.last_error = row["taken_over"], row["interrupted"], row["error_code"]
            if row["cancel_requested"]:
                one.cancellation.request()
            claimed.append(one)
        else:
            left.append(_not_claimed(admitted, row))
    # no visible row: another batch is writing it right now
    left += [NotClaimed(admitted, Verdict.HELD) for admitted in by_key.values()]
    return claimed, left


def _claimed(admitted: Admitted, row: Any) -> Claimed:
    # what its message does not say was decided when it was recorded, and is not decided anew by a later delivery
    admitted.envelope = replace(admitted.envelope, accepted_at=row["accepted_at"], deadline_at=row["deadline_at"])
    return Claimed(
        admitted,
        day=row["day"],
        token=row["token"],
        attempt=row["attempt"],
        crashes=row["crashes"],
        calls=row["calls"],
        started_at=row["started_at"],
    )


def _not_claimed(admitted: Admitted, row: Any) -> NotClaimed:
    if not row["kept"]:
        return NotClaimed(admitted, Verdict.FORGOTTEN)
    if not row["same"]:
        return NotClaimed(admitted, Verdict.ID_REUSED)
    if row["free"]:
        return NotClaimed(admitted, Verdict.SUSPECT)
    if row["state"] == "retrying":
        return NotClaimed(admitted, Verdict.EARLY, row["state"], retry_at=row["retry_at"])
    if row["state"] in (None, "queued", "running"):
        return NotClaimed(admitted, Verdict.HELD, row["state"])
    return NotClaimed(admitted, Verdict.TERMINAL, row["state"], row["result"])


_ALONE = (
    "update commands set alone = alone + 1 where token = $1 and publisher = $2 and id = $3 and day = $4 returning alone"
)


async def mark_alone(connection: Any, claimed: Claimed) -> int:
    """Note, before it starts, that a command is run with nothing else in flight.

    Args:
        connection: In no transaction.
        claimed: The suspect.

    Returns:
        Times that it has been run so, counting this one; 0 when its claim is gone.
    """
    publisher, id_ = claimed.admitted.key
    return int(await connection.fetchval(_ALONE, claimed.token, publisher, id_, claimed.day) or 0)
