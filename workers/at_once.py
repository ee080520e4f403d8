"""Claims and finishes commands whose effect is their transaction, in one statement: what makes a relay cheap.

A relay does no I/O of its own, so nothing can happen between its claim and its result, and there is no claim to see. One
statement takes what is new and what the gateway has recorded, writes the terminal rows with messages, deliveries and
outbox, and deletes the outbox rows that have been confirmed meanwhile. A round trip for each table would cost more than
the rows do.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson

from workers.claims import ROWS, columns
from workers.commits import OutboxKey
from workers.deliveries import Finished, Key

# Joins of two small lists compare ids first: nearly all differ there. Whatever is read of a table is read by its key.
_FINISH = f"""
with {ROWS},
r as (select * from unnest($2::uuid[], $1::text[], $16::text[]) as t(id, publisher, result)),
m as (
  select * from unnest($20::text[], $21::uuid[], $22::smallint[], $23::text[], $24::text[], $25::text[], $26::jsonb[],
    $27::timestamptz[], $28::text[])
  as t(publisher, id, position, conversation_id, sender, text, metadata, sent_at, deliver_to)
),
f as (
  select * from unnest($29::text[], $30::uuid[], $31::smallint[], $32::uuid[], $33::text[], $34::text[],
    $35::timestamptz[])
  as t(publisher, id, part, child_id, kind, body, accepted_at)
),
fresh as (
  insert into command_keys (publisher, id, fingerprint) select publisher, id, fingerprint from w
  on conflict do nothing returning publisher, id, day
),
new as (
  insert into commands (publisher, id, day, kind, owner, state, attempt, token, holder, repeatable, routing_key, reply_to,
    correlation_id, traceparent, priority, payload, accepted_at, deadline_at, started_at, finished_at, result, replay_of)
  select w.publisher, w.id, fresh.day, kind, owner, 'succeeded', 1, nextval('token_seq'), $17, repeatable, routing_key,
    reply_to, correlation_id, traceparent, priority, payload, accepted_at, deadline_at, $18, $19, result, replay_of
  from w join fresh on fresh.id = w.id and fresh.publisher = w.publisher
    join r on r.id = w.id and r.publisher = w.publisher
  returning *
),
cur as materialized (
  select c.publisher, c.id, c.day
  from w join command_keys k using (publisher, id) join commands c using (publisher, id, day)
  where k.fingerprint = w.fingerprint and c.state = 'queued' and c.attempt = 0
  order by c.publisher, c.id
  for update of c skip locked
),
queued as (
  update commands c set state = 'succeeded', attempt = 1, token = nextval('token_seq'), holder = $17, result = r.result,
    started_at = $18, finished_at = $19
  from cur join r on r.id = cur.id and r.publisher = cur.publisher
  where (c.publisher, c.id, c.day) = (cur.publisher, cur.id, cur.day)
  returning c.*
),
done as materialized (select * from new union all select * from queued),
lines as materialized (
  select done.owner, done.accepted_at, m.* from m join done on done.id = m.id and done.publisher = m.publisher
),
conversation as (
  insert into conversations (owner, id) select distinct owner, conversation_id from lines order by 1, 2
  on conflict do nothing
),
message as (
  insert into messages (publisher, command_id, position, owner, conversation_id, sender, text, metadata, sent_at,
    accepted_at)
  select publisher, id, position, owner, conversation_id, sender, text, metadata, sent_at, accepted_at from lines
),
delivery as (
  insert into deliveries (target_id, owner, conversation_id, publisher, command_id, position, accepted_at)
  select t.id, l.owner, l.conversation_id, l.publisher, l.id, l.position, l.accepted_at
  from lines l join targets t on t.owner = l.owner and t.disabled_at is null
    and (t.conversation_id is null or t.conversation_id = l.conversation_id)
    and (l.deliver_to is null or t.name = any (string_to_array(l.deliver_to, ',')))
  order by l.accepted_at, l.id, l.position, t.id
  on conflict do nothing
),
notice as (
  insert into outbox (token, part, publisher, id, kind, status, owner, reply_to, correlation_id, traceparent, body,
    accepted_at, deadline_at)
  select token, 0, publisher, id, kind, state, owner, reply_to, correlation_id, traceparent, result, accepted_at,
    deadline_at
  from done
  union all
  select done.token, f.part, done.publisher, f.child_id, f.kind, null, done.owner, null, done.correlation_id,
    done.traceparent, f.body, f.accepted_at, done.deadline_at
  from f join done on done.id = f.id and done.publisher = f.publisher
),
forgotten as (
  delete from outbox where (token, part) in (select * from unnest($36::bigint[], $37::smallint[]))
)
select publisher, id, day, token from done
"""  # noqa: S608  # only constants of this module and of workers.claims


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
    rows = await connection.fetch(
        _FINISH,
        *columns([one.claimed.admitted for one in batch]),
        [(one.result or b"").decode() for one in batch],
        holder,
        started_at,
        finished_at,
        *_messages(batch),
        *_follow_ups(batch),
        [key.token for key in sent],
        [key.part for key in sent],
    )
    return {(row["publisher"], row["id"]): (row["day"], row["token"]) for row in rows}


def _messages(batch: Sequence[Finished]) -> list[list[Any]]:
    lines = [
        (one.claimed.admitted.envelope, position, message)
        for one in batch
        if one.outcome
        for position, message in enumerate(one.outcome.messages)
    ]
    return [
        [envelope.publisher for envelope, _, _ in lines],
        [envelope.id for envelope, _, _ in lines],
        [position for _, position, _ in lines],
        [message.conversation_id for _, _, message in lines],
        [message.sender for _, _, message in lines],
        [message.text for _, _, message in lines],
        [orjson.dumps(message.metadata).decode() for _, _, message in lines],
        [message.sent_at for _, _, message in lines],
        [",".join(message.deliver_to) if message.deliver_to is not None else None for _, _, message in lines],
    ]


def _follow_ups(batch: Sequence[Finished]) -> list[list[Any]]:
    rows = [
        (one.claimed.admitted.envelope, part, child, body)
        for one in batch
        for part, (child, body) in enumerate(one.follow_ups, start=1)
    ]
    return [
        [parent.publisher for parent, _, _, _ in rows],
        [parent.id for parent, _, _, _ in rows],
        [part for _, part, _, _ in rows],
        [child.id for _, _, child, _ in rows],
        [child.kind.name for _, _, child, _ in rows],
        [body.decode() for _, _, _, body in rows],
        [child.accepted_at for _, _, child, _ in rows],
    ]
