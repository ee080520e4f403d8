"""Claims and finishes commands whose effect is their transaction: what makes a relay cheap.

A relay does no I/O of its own, so nothing can happen between its claim and its result, and there is no claim to see.

    take what is new ─► take what the gateway recorded (if any is left) ─► write everything that follows

Three statements, whatever the batch's size. None joins two lists of the batch: without hash joins (see
`contracts.database`) that would cost the square of it, so what one statement returns is matched here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from contracts.tables import (
    COMMAND,
    DELIVER_TO,
    KEY,
    MESSAGE,
    NEW_KEYS,
    OUTBOX,
    Column,
    Columns,
    Parameters,
    insert_commands,
    insert_messages,
    insert_outbox,
)
from workers.stages import Finished, Key
from workers.store.commits import OutboxKey, message_rows, outbox_rows

_TAKE_NEW = f"""
with w as (
  select * from {Parameters().unnest(KEY)} order by publisher, id
),
{NEW_KEYS}
select publisher, id, day, nextval('token_seq') as token from fresh
"""  # noqa: S608  # only constants

# Recorded by the gateway and never run. Locked in key order; `skip locked` leaves what somebody is cancelling.
_TAKE_QUEUED = """
with w as (
  select * from unnest($1::text[], $2::uuid[], $3::bytea[], $4::text[]) as t(publisher, id, fingerprint, result)
  order by 1, 2
),
cur as materialized (
  select c.publisher, c.id, c.day, w.result
  from w cross join lateral (
    select k.day from command_keys k
    where k.publisher = w.publisher and k.id = w.id and k.fingerprint = w.fingerprint offset 0
  ) k cross join lateral (
    select c.publisher, c.id, c.day, c.state, c.attempt from commands c
    where c.publisher = w.publisher and c.id = w.id and c.day = k.day
    offset 0 for update skip locked
  ) c
  where c.state = 'queued' and c.attempt = 0
)
update commands c set state = 'succeeded', attempt = 1, token = nextval('token_seq'), holder = $5, result = cur.result,
  started_at = $6, finished_at = $7
from cur where (c.publisher, c.id, c.day) = (cur.publisher, cur.id, cur.day)
returning c.publisher, c.id, c.day, c.token
"""


@dataclass(frozen=True, slots=True)
class _Taken:
    """What is written of a new command beside its row as it came."""

    day: date
    token: int
    result: str


_TAKEN = Columns[_Taken](
    Column("day", "date", lambda one: one.day),
    Column("token", "bigint", lambda one: one.token),
    Column("result", "text", lambda one: one.result),
)
_PARAMETERS = Parameters()
_COMMANDS = _PARAMETERS.unnest(COMMAND, _TAKEN)
_HOLDER, _STARTED_AT, _FINISHED_AT = (_PARAMETERS.one(one) for one in ("uuid", "timestamptz", "timestamptz"))
_LINES = _PARAMETERS.unnest(MESSAGE, DELIVER_TO, place="place")
_NOTICES = _PARAMETERS.unnest(OUTBOX)
_SENT_TOKENS, _SENT_PARTS = (_PARAMETERS.one(one) for one in ("bigint[]", "smallint[]"))
_WRITE = f"""
with command as (
  {
    insert_commands(
        {
            "day": "day",
            "token": "token",
            "result": "result",
            "state": "'succeeded'",
            "attempt": "1",
            "holder": _HOLDER,
            "started_at": _STARTED_AT,
            "finished_at": _FINISHED_AT,
        }
    )
} from {_COMMANDS}
),
line as materialized (
  select * from {_LINES}
),
{insert_messages("line")},
notice as (
  {insert_outbox(_NOTICES)}
)
delete from outbox
where token = any ({_SENT_TOKENS}) and (token, part) in (select * from unnest({_SENT_TOKENS}, {_SENT_PARTS}))
"""  # noqa: S608  # only constants


async def finish_at_once(
    connection: Any,
    batch: Sequence[Finished],
    *,
    sent: Sequence[OutboxKey],
    holder: UUID,
    started_at: datetime,
    finished_at: datetime,
) -> dict[Key, tuple[date, int]]:
    """Claim and finish commands whose effect is this transaction. Call it in a transaction.

    Args:
        connection: In a transaction of the caller's.
        batch: First runs that succeeded, of commands with different keys; their outcomes hold messages and follow-ups
            only.
        sent: Outbox rows that are confirmed, to be deleted.
        holder: This worker's incarnation.
        started_at: When the batch was begun.
        finished_at: Now.

    Returns:
        Day and token of those that are finished; the others need a claim of their own (they ran before, are running
        elsewhere, ended already, or came under a used id).
    """
    new = _by_key(await connection.fetch(_TAKE_NEW, *KEY.arrays(one.claimed.admitted.row for one in batch)))
    queued: dict[Key, tuple[date, int]] = {}
    rest = [one for one in batch if one.claimed.admitted.key not in new]
    if rest:
        keys = KEY.arrays(one.claimed.admitted.row for one in rest)
        results = [_result(one) for one in rest]
        queued = _by_key(await connection.fetch(_TAKE_QUEUED, *keys, results, holder, started_at, finished_at))
    done = new | queued
    first = [one for one in batch if one.claimed.admitted.key in new]
    finished = [one for one in batch if one.claimed.admitted.key in done]
    messages = message_rows(finished)
    await connection.execute(
        _WRITE,
        *COMMAND.arrays(one.claimed.admitted.row for one in first),
        *_TAKEN.arrays(_Taken(*new[one.claimed.admitted.key], _result(one)) for one in first),
        holder,
        started_at,
        finished_at,
        *MESSAGE.arrays(messages),
        *DELIVER_TO.arrays(messages),
        *OUTBOX.arrays(row for one in finished for row in outbox_rows(one, done[one.claimed.admitted.key][1])),
        [key.token for key in sent],
        [key.part for key in sent],
    )
    return done


def _by_key(rows: Sequence[Any]) -> dict[Key, tuple[date, int]]:
    return {(row["publisher"], row["id"]): (row["day"], row["token"]) for row in rows}


def _result(one: Finished) -> str:
    if one.result is None:
        raise TypeError("a run that is finished at once has a result")
    return one.result.decode()
