"""Turns: the lease of one conversation at one target, and the statements that take, keep and end it.

    due ──► turn taken ──► its first message sent ──2xx──► the next one, in the same turn ──► … ──► turn ended
              │                     └─ failed, given up ──► turn ended
              └─ somebody else's ──► looked at again when that ends

Messages of a conversation go out one at a time because one worker at a time has its turn, not because of an order in which
rows are found: an older message may be recorded while a younger one is on its way.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

_JOB_COLUMNS = """
leased.seq, leased.tries, leased.target_id, leased.publisher, leased.command_id, leased.position, leased.accepted_at,
  leased.conversation_id as turn_of, leased.turn, t.name, t.url, t.secret, t.disabled_at is not null as disabled,
  m.conversation_id, m.sender, m.text, m.metadata, m.sent_at
from leased join targets t on t.id = leased.target_id
left join messages m on m.publisher = leased.publisher and m.command_id = leased.command_id
  and m.position = leased.position
"""

_FIRST = """
    select p.seq, p.tries, p.not_before from deliveries p
    where p.state = 'pending' and p.target_id = {of}.target_id and p.conversation_id = {of}.conversation_id {but}
    order by p.accepted_at, p.seq limit 1
"""

# What is due but must wait is parked, so that a long queue is looked at once per try of its first message and not once
# per round: behind that message, or, while the conversation has its turn, behind the end of that. The first message alone
# is looked at again after a second: the turn may have ended while it was being parked.
_TAKE = f"""
with due as materialized (
  select seq, target_id, conversation_id from deliveries
  where state = 'pending' and not_before <= clock_timestamp() and target_id <> all ($1::uuid[])
  order by not_before limit $2 for update skip locked
),
judged as materialized (
  select due.*, head.seq = due.seq as first, head.not_before as head_not_before, turn.until
  from due cross join lateral ({_FIRST.format(of="due", but="")}) head
  left join delivery_turns turn on turn.target_id = due.target_id and turn.conversation_id = due.conversation_id
    and turn.until > clock_timestamp()
),
chosen as materialized (
  select target_id, conversation_id from (
    select *, row_number() over (partition by target_id order by seq) as place from judged where first and until is null
  ) ranked where place <= $3 order by place, seq limit $4
),
parked as (
  update deliveries d set not_before = greatest(
    clock_timestamp() + interval '1 second', case when not j.first then coalesce(j.until, j.head_not_before) end)
  from judged j where d.seq = j.seq and (not j.first or j.until is not null)
)
insert into delivery_turns as held (target_id, conversation_id, token, until)
select target_id, conversation_id, gen_random_uuid(), clock_timestamp() + $5::interval from chosen order by 1, 2
on conflict (target_id, conversation_id) do update set token = excluded.token, until = excluded.until
  where held.until <= clock_timestamp()
returning target_id, conversation_id, token
"""  # noqa: S608  # only constants of this module

# A statement of its own: it sees what whoever had the turn before has written
_BEGIN = f"""
with turn as materialized (
  select * from unnest($1::uuid[], $2::text[], $3::uuid[]) as t(target_id, conversation_id, token)
),
head as materialized (
  select first.seq, turn.token from turn cross join lateral ({_FIRST.format(of="turn", but="")}) first
  where first.not_before <= clock_timestamp()
),
leased as (
  update deliveries d set tries = d.tries + 1, not_before = clock_timestamp() + $4::interval
  from head where d.seq = head.seq and d.state = 'pending' returning d.*, head.token as turn
),
ended as (
  delete from delivery_turns held using turn
  where held.token = turn.token and (held.target_id, held.conversation_id) = (turn.target_id, turn.conversation_id)
    and turn.token not in (select token from head)
)
select {_JOB_COLUMNS}
"""  # noqa: S608  # only constants of this module

# `tries` fences the message, the token the turn: who lost its turn may still tell that a message was delivered
_FINISH = f"""
with done as (
  update deliveries set state = $5, finished_at = clock_timestamp(), last_error = $6
  where seq = $3 and tries = $4 and state = 'pending'
),
turn as materialized (
  select target_id, conversation_id, token from delivery_turns
  where target_id = $1 and conversation_id = $2 and token = $7 and until > clock_timestamp() for update
),
next as materialized (
  select first.*, turn.token, $8::bool and (first.tries = 0 or first.not_before <= clock_timestamp()) as at_once
  from turn cross join lateral ({_FIRST.format(of="turn", but="and p.seq <> $3")}) first
),
leased as (
  update deliveries d set tries = d.tries + next.at_once::int,
    not_before = case when next.at_once then clock_timestamp() + $9::interval
      when d.tries = 0 then clock_timestamp() else d.not_before end
  from next where d.seq = next.seq and d.state = 'pending' returning d.*, next.token as turn, next.at_once
),
kept as (
  update delivery_turns held set until = clock_timestamp() + $9::interval from leased
  where leased.at_once and held.target_id = $1 and held.conversation_id = $2 and held.token = $7
),
ended as (
  delete from delivery_turns where target_id = $1 and conversation_id = $2 and token = $7
    and not exists (select from leased where at_once)
)
select {_JOB_COLUMNS} where leased.at_once
"""  # noqa: S608  # only constants of this module

_POSTPONE = """
with failed as (
  update deliveries set not_before = clock_timestamp() + $5::interval, last_error = $6
  where seq = $3 and tries = $4 and state = 'pending'
)
delete from delivery_turns where target_id = $1 and conversation_id = $2 and token = $7
"""


async def take(
    database: Any, *, without: Sequence[UUID], look_at: int, per_target: int, most: int, lease: timedelta
) -> list[Any]:
    """Take the turn of conversations that have a message due, and lease the first message of each.

    Args:
        database: asyncpg pool.
        without: Targets that have all the slots they may have.
        look_at: Maximum number of due messages to look at.
        per_target: Maximum number of conversations of one target.
        most: Maximum number of conversations.
        lease: How long the turn lasts unless it is kept.

    Returns:
        A delivery with its message, target and turn, for each turn that was taken and has one.
    """
    turns = await database.fetch(_TAKE, list(without), look_at, per_target, most, lease)
    if not turns:
        return []
    columns = ([turn[name] for turn in turns] for name in ("target_id", "conversation_id", "token"))
    return list(await database.fetch(_BEGIN, *columns, lease))


async def finish(
    database: Any, job: Any, state: str, problem: str | None, *, go_on: bool, lease: timedelta
) -> Any | None:
    """Record the end of a delivery, and go on with the next message of the conversation or end the turn.

    Args:
        database: asyncpg pool.
        job: From `take` or from this.
        state: `delivered` or `abandoned`.
        problem: Why it was abandoned.
        go_on: Whether the turn goes on if it is still this worker's.
        lease: How long it then lasts.

    Returns:
        The next delivery, leased; None when the turn has ended.
    """
    return await database.fetchrow(
        _FINISH,
        job["target_id"],
        job["turn_of"],
        job["seq"],
        job["tries"],
        state,
        problem,
        job["turn"],
        go_on,
        lease,
    )


async def postpone(database: Any, job: Any, delay: timedelta, problem: str | None) -> None:
    """Record a try that failed, and end the turn.

    Args:
        database: asyncpg pool.
        job: From `take` or `finish`.
        delay: Until the next try.
        problem: Why it failed.
    """
    await database.execute(
        _POSTPONE,
        job["target_id"],
        job["turn_of"],
        job["seq"],
        job["tries"],
        delay,
        problem,
        job["turn"],
    )
