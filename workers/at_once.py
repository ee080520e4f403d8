"""Claims and finishes commands whose effect is their transaction: what makes a relay cheap.

A relay does no I/O of its own, so nothing can happen between its claim and its result, and there is no claim to see.

    take what is new ─► take what the gateway recorded (if any is left) ─► write everything that follows

Three statements, whatever the batch's size. None joins two lists of the batch: without hash joins (see
`contracts.database`) that would cost the square of it, so what one statement returns is matched here.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson

from workers.claims import columns
from workers.commits import OutboxKey, outbox_columns
from workers.deliveries import Finished, Key

_TAKE_NEW = """
with w as (
  select * from unnest($1::text[], $2::uuid[], $3::bytea[]) as t(publisher, id, fingerprint) order by 1, 2
),
fresh as (
  insert into command_keys (publisher, id, fingerprint) select publisher, id, fingerprint from w
  on conflict do nothing returning publisher, id, day
)
select publisher, id, day, nextval('token_seq') as token from fresh
"""

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

_WRITE = """
with command as (
  insert into commands (publisher, id, kind, owner, routing_key, reply_to, correlation_id, traceparent, priority,
    payload, repeatable, accepted_at, deadline_at, replay_of, day, token, result,
    state, attempt, holder, started_at, finished_at)
  select *, 'succeeded', 1, $18::uuid, $19::timestamptz, $20::timestamptz
  from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::bool[], $12::timestamptz[], $13::timestamptz[], $14::uuid[], $15::date[],
    $16::bigint[], $17::text[])
),
line as materialized (
  select * from unnest($21::text[], $22::uuid[], $23::smallint[], $24::text[], $25::text[], $26::text[], $27::text[],
    $28::jsonb[], $29::timestamptz[], $30::timestamptz[], $31::text[]) with ordinality
  as t(publisher, command_id, position, owner, conversation_id, sender, text, metadata, sent_at, accepted_at,
    deliver_to, place)
),
conversation as (
  insert into conversations (owner, id) select distinct owner, conversation_id from line order by 1, 2
  on conflict do nothing
),
message as (
  insert into messages (publisher, command_id, position, owner, conversation_id, sender, text, metadata, sent_at,
    accepted_at)
  select publisher, command_id, position, owner, conversation_id, sender, text, metadata, sent_at, accepted_at from line
),
delivery as (
  insert into deliveries (target_id, owner, conversation_id, publisher, command_id, position, accepted_at)
  select t.id, l.owner, l.conversation_id, l.publisher, l.command_id, l.position, l.accepted_at
  from line l join targets t on t.owner = l.owner and t.disabled_at is null
    and (t.conversation_id is null or t.conversation_id = l.conversation_id)
    and (l.deliver_to is null or t.name = any (string_to_array(l.deliver_to, ',')))
  order by l.accepted_at, l.place, t.id
  on conflict do nothing
),
notice as (
  insert into outbox (token, part, publisher, id, kind, status, owner, reply_to, correlation_id, traceparent, body,
    accepted_at, deadline_at)
  select * from unnest($32::bigint[], $33::smallint[], $34::text[], $35::uuid[], $36::text[], $37::text[], $38::text[],
    $39::text[], $40::text[], $41::text[], $42::text[], $43::timestamptz[], $44::timestamptz[])
)
delete from outbox where token = any ($45::bigint[]) and (token, part) in (select * from unnest($45::bigint[], $46::smallint[]))
"""


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
    keys = [list(column) for column in zip(*(_key(one) for one in batch), strict=True)]
    new = _by_key(await connection.fetch(_TAKE_NEW, *keys))
    queued: dict[Key, tuple[date, int]] = {}
    rest = [one for one in batch if one.claimed.admitted.key not in new]
    if rest:
        keys = [list(column) for column in zip(*(_key(one) for one in rest), strict=True)]
        results = [_result(one) for one in rest]
        queued = _by_key(await connection.fetch(_TAKE_QUEUED, *keys, results, holder, started_at, finished_at))
    done = new | queued
    await connection.execute(
        _WRITE,
        *_commands([one for one in batch if one.claimed.admitted.key in new], new),
        holder,
        started_at,
        finished_at,
        *_messages([one for one in batch if one.claimed.admitted.key in done]),
        *outbox_columns(
            [(one, done[one.claimed.admitted.key][1]) for one in batch if one.claimed.admitted.key in done]
        ),
        [key.token for key in sent],
        [key.part for key in sent],
    )
    return done


def _key(one: Finished) -> tuple[str, UUID, bytes]:
    admitted = one.claimed.admitted
    return admitted.envelope.publisher, admitted.envelope.id, admitted.fingerprint


def _by_key(rows: Sequence[Any]) -> dict[Key, tuple[date, int]]:
    return {(row["publisher"], row["id"]): (row["day"], row["token"]) for row in rows}


def _result(one: Finished) -> str:
    if one.result is None:
        raise TypeError("a run that is finished at once has a result")
    return one.result.decode()


def _commands(batch: Sequence[Finished], taken: dict[Key, tuple[date, int]]) -> list[list[Any]]:
    publisher, id_, _, *others = columns([one.claimed.admitted for one in batch])
    places = [taken[one.claimed.admitted.key] for one in batch]
    return [
        publisher,
        id_,
        *others,
        [day for day, _ in places],
        [token for _, token in places],
        [_result(one) for one in batch],
    ]


def _messages(batch: Sequence[Finished]) -> list[list[Any]]:
    lines = [
        (one.claimed.admitted.envelope, position, message)
        for one in batch
        if one.outcome
        for position, message in enumerate(one.outcome.messages, start=one.first_position)
    ]
    return [
        [envelope.publisher for envelope, _, _ in lines],
        [envelope.id for envelope, _, _ in lines],
        [position for _, position, _ in lines],
        [envelope.owner for envelope, _, _ in lines],
        [message.conversation_id for _, _, message in lines],
        [message.sender for _, _, message in lines],
        [message.text for _, _, message in lines],
        [orjson.dumps(message.metadata).decode() for _, _, message in lines],
        [message.sent_at for _, _, message in lines],
        [envelope.accepted_at for envelope, _, _ in lines],
        [",".join(message.deliver_to) if message.deliver_to is not None else None for _, _, message in lines],
    ]
