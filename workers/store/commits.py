"""Commits: what a batch of finished commands writes, in one transaction guarded by their tokens.

A row whose token is no longer the newest was taken over by another worker: nothing of it is written. The statements are
one per table, whatever the batch's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from contracts.database import is_passing
from contracts.restarting import tell_fault
from contracts.results import TERMINAL
from contracts.tables import (
    DELIVER_TO,
    MESSAGE,
    MessageRow,
    OutboxRow,
    Parameters,
    insert_messages,
    write_outbox,
)
from workers.stages import Finished
from workers.store.dead_letters import dead_letter_of, insert_dead_letters, storable


@dataclass(frozen=True, slots=True)
class OutboxKey:
    """A row of the outbox."""

    token: int
    part: int


# Rows are locked by their key before their state is asked: a condition on the state beside the key would let the planner
# read the small index of open commands instead.
_FINISH = """
with u as (
  select * from unnest($1::text[], $2::uuid[], $3::date[], $4::bigint[], $5::text[], $6::text[], $7::text[],
    $8::timestamptz[], $9::timestamptz[], $10::int[], $11::int[])
  as t(publisher, id, day, token, state, result, error_code, finished_at, retry_at, calls, attempts_back)
  order by 1, 2
),
cur as materialized (
  select u.* from u cross join lateral (
    select c.token, c.state from commands c
    where c.publisher = u.publisher and c.id = u.id and c.day = u.day
    offset 0 for update
  ) c
  where c.token = u.token and c.state = 'running'
)
update commands c set state = cur.state, result = cur.result, error_code = cur.error_code,
  finished_at = cur.finished_at, retry_at = cur.retry_at, calls = c.calls + cur.calls,
  attempt = c.attempt - cur.attempts_back,
  crashes = case when cur.state = 'retrying' then 0 else c.crashes end,  -- it came back: it kills no worker
  alone = case when cur.state = 'retrying' then 0 else c.alone end
from cur where (c.publisher, c.id, c.day) = (cur.publisher, cur.id, cur.day)
returning c.token
"""

_ATTEMPTS = """
insert into attempts (publisher, id, day, attempt, token, worker, target, started_at, duration_seconds, outcome,
  error_code, error_message, tokens_in, tokens_out, cost_usd, details)
select * from unnest($1::text[], $2::uuid[], $3::date[], $4::int[], $5::bigint[], $6::text[], $7::text[],
  $8::timestamptz[], $9::float8[], $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::numeric[],
  $16::jsonb[])
"""

_MESSAGES = f"""
with line as materialized (
  select * from {Parameters().unnest(MESSAGE, DELIVER_TO, place="place")}
),
{insert_messages("line")}
select
"""  # noqa: S608  # only constants

_ARTIFACTS = """
insert into artifacts (sha256, content_type, size_bytes, content)
select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[]) order by 1
on conflict (sha256) do update set created_at = clock_timestamp()
"""

_ARTIFACT_OWNERS = """
insert into artifact_owners (sha256, owner, publisher, command_id, media_type)
select * from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[])
on conflict do nothing
"""

_FORGET_SENT = """
delete from outbox where token = any ($1::bigint[]) and (token, part) in (select * from unnest($1::bigint[], $2::smallint[]))
"""


async def commit(connection: Any, finished: Sequence[Finished], *, worker: str, queue: str) -> set[int]:
    """Write what a batch of runs led to. Call it in a transaction.

    Args:
        connection: In a transaction of the caller's.
        finished: Runs with different tokens.
        worker: Name of this worker, for the attempts.
        queue: The work queue, for dead letters.

    Returns:
        The tokens that were written; a missing one had been taken over.
    """
    tokens = await _finish(connection, finished)
    written = [one for one in finished if one.claimed.token in tokens]
    if written:
        await _insert_attempts(connection, [one for one in written if not one.deferred], worker=worker)
        await _insert_effects(connection, written, queue=queue)
    return tokens


async def _finish(connection: Any, finished: Sequence[Finished]) -> set[int]:
    rows = await connection.fetch(
        _FINISH,
        [one.claimed.admitted.envelope.publisher for one in finished],
        [one.claimed.admitted.envelope.id for one in finished],
        [one.claimed.day for one in finished],
        [one.claimed.token for one in finished],
        [one.state.value for one in finished],
        [one.result.decode() if one.result is not None else None for one in finished],
        [one.error.code.value if one.error else None for one in finished],
        [one.finished_at if one.state in TERMINAL else None for one in finished],
        [one.retry_at for one in finished],
        [one.usage.calls for one in finished],
        [int(one.deferred) for one in finished],
    )
    return {row["token"] for row in rows}


async def commit_failure(connection: Any, failed: Finished, *, worker: str, queue: str) -> bool:
    """Write the failure of a command whose result could not be written. Call it in a transaction.

    Its own row counts. What belongs to it is written if that can be: a ledger entry that is refused must not keep the
    command from ending.

    Args:
        connection: In a transaction of the caller's.
        failed: A run that failed.
        worker: Name of this worker, for the attempts.
        queue: The work queue, for dead letters.

    Returns:
        Whether it was written; if not, the command had been taken over.
    """
    if not await _finish(connection, [failed]):
        return False
    for write in (
        partial(_insert_attempts, connection, [failed], worker=worker),
        partial(_insert_outbox, connection, [failed]),
        partial(_insert_letters, connection, [failed], queue=queue),
    ):
        try:
            async with connection.transaction():
                await write()
        except Exception as error:
            if is_passing(error):
                raise
            tell_fault("commit", error, command_id=str(failed.claimed.admitted.envelope.id))
    return True


async def _insert_effects(connection: Any, finished: Sequence[Finished], *, queue: str) -> None:
    """Write messages, deliveries, artifacts, outbox rows and dead letters of runs whose command row is written.

    Args:
        connection: In the same transaction.
        finished: Runs.
        queue: The work queue, for dead letters.
    """
    await _insert_messages(connection, finished)
    await _insert_artifacts(connection, finished)
    await _insert_outbox(connection, [one for one in finished if one.state in TERMINAL])
    await _insert_letters(connection, finished, queue=queue)


async def _insert_letters(connection: Any, finished: Sequence[Finished], *, queue: str) -> None:
    letters = [
        dead_letter_of(one.claimed.admitted, reason=one.error.code.value, message=one.error.message, queue=queue)
        for one in finished
        if one.dead_letter and one.error is not None
    ]
    if letters:
        await insert_dead_letters(connection, letters)


async def _insert_attempts(connection: Any, finished: Sequence[Finished], *, worker: str) -> None:
    if not finished:
        return
    usage = [one.usage for one in finished]
    await connection.execute(
        _ATTEMPTS,
        [one.claimed.admitted.envelope.publisher for one in finished],
        [one.claimed.admitted.envelope.id for one in finished],
        [one.claimed.day for one in finished],
        [one.claimed.attempt for one in finished],
        [one.claimed.token for one in finished],
        [worker] * len(finished),
        [use.target or _target(one) for one, use in zip(finished, usage, strict=True)],
        [one.run_started_at for one in finished],
        [one.duration_seconds for one in finished],
        [one.state.value for one in finished],
        [one.error.code.value if one.error else None for one in finished],
        [storable(one.error.message) if one.error else None for one in finished],
        [use.tokens_in for use in usage],
        [use.tokens_out for use in usage],
        [use.cost_usd for use in usage],
        [orjson.dumps(use.details).decode() if use.details is not None else None for use in usage],
    )


def _target(one: Finished) -> str | None:
    target = one.error.details.get("target") if one.error else None
    return target if isinstance(target, str) else None


async def _insert_messages(connection: Any, finished: Sequence[Finished]) -> None:
    rows = message_rows(finished)
    if rows:
        await connection.execute(_MESSAGES, *MESSAGE.arrays(rows), *DELIVER_TO.arrays(rows))


def message_rows(finished: Sequence[Finished]) -> list[MessageRow]:
    """The messages that runs led to.

    Args:
        finished: Runs, in the order in which their messages are delivered.
    """
    return [
        MessageRow(
            publisher=one.claimed.admitted.envelope.publisher,
            command_id=one.claimed.admitted.envelope.id,
            position=position,
            owner=one.claimed.admitted.envelope.owner,
            conversation_id=message.conversation_id,
            sender=message.sender,
            text=message.text,
            metadata=orjson.dumps(message.metadata).decode(),
            sent_at=message.sent_at,
            accepted_at=one.claimed.admitted.envelope.accepted_at,
            deliver_to=message.deliver_to,
        )
        for one in finished
        if one.outcome
        for position, message in enumerate(one.outcome.messages, start=one.first_position)
    ]


async def _insert_artifacts(connection: Any, finished: Sequence[Finished]) -> None:
    owned = [
        (one.claimed.admitted.envelope, artifact)
        for one in finished
        if one.outcome
        for artifact in one.outcome.artifacts
    ]
    if not owned:
        return
    distinct = {artifact.sha256: artifact for _, artifact in owned}.values()
    await connection.execute(
        _ARTIFACTS,
        [artifact.sha256 for artifact in distinct],
        [artifact.content_type for artifact in distinct],
        [len(artifact.content) for artifact in distinct],
        [artifact.content for artifact in distinct],
    )
    await connection.execute(
        _ARTIFACT_OWNERS,
        [artifact.sha256 for _, artifact in owned],
        [envelope.owner for envelope, _ in owned],
        [envelope.publisher for envelope, _ in owned],
        [envelope.id for envelope, _ in owned],
        [artifact.content_type for _, artifact in owned],
    )


async def _insert_outbox(connection: Any, finished: Sequence[Finished]) -> None:
    await write_outbox(connection, [row for one in finished for row in outbox_rows(one, one.claimed.token)])


def outbox_rows(finished: Finished, token: int) -> list[OutboxRow]:
    """What is to be published of a run that ended: its result, then its follow-ups.

    Args:
        finished: The run.
        token: Under which it was written.
    """
    if finished.result is None:
        raise TypeError("a terminal run has a result")
    result = OutboxRow(token, 0, finished.claimed.admitted.envelope, finished.state.value, finished.result)
    follow_ups = [
        OutboxRow(token, part, envelope, None, body)
        for part, (envelope, body) in enumerate(finished.follow_ups, start=1)
    ]
    return [result, *follow_ups]


async def forget_sent(connection: Any, sent: Sequence[OutboxKey]) -> None:
    """Delete outbox rows whose messages the broker has confirmed.

    Args:
        connection: Any connection; it rides in the next batch's transaction.
        sent: Their keys.
    """
    await connection.execute(_FORGET_SENT, [one.token for one in sent], [one.part for one in sent])
