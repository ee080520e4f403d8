"""Sends again what was not confirmed: results to their reply queues, follow-up commands to their work queues.

    due row ──take (lease)──► publish ──confirmed──► deleted
                                 ├─ no such queue, full, or no answer ──► again in 5 s, 10 s, 20 s … 10 min
                                 └─ refused, and older than a day ──► dead letter `undeliverable`

The reply goes first and the event on `ish.results` after it; when only the event fails, the row asks for no reply any
more, so that nobody gets a second one for its sake.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.amqp.messages import outbox_messages
from contracts.amqp.publisher import Outgoing, Publisher, PublishFailed, Refused, Unconfirmed, Unroutable
from contracts.commands import KINDS, routing_key
from contracts.database import acquired, is_passing
from contracts.errors import ErrorCode
from contracts.logs import get_logger
from contracts.metrics import DEAD_LETTERS, OUTBOX_LAG, OUTBOX_RESENT
from contracts.tables import outbox_row
from contracts.topology import RESULTS
from workers.store.dead_letters import DeadLetter, insert_dead_letters

_GATEWAY_QUEUES = "reply.gateway."
_BATCH = 200
_LEASE = timedelta(seconds=15)
"""Longer than two publishes: another outbox worker takes the row only when this one died."""
_PUBLISH_TIMEOUT_SECONDS = 5.0
_LAG_EVERY_ROUNDS = 5
_BACKOFF_SECONDS = 5.0
_BACKOFF_MAX_SECONDS = 600.0

# `materialized`: a plan that ran the locking query twice would take more than the limit
_TAKE = """
with due as materialized (
  select token, part from outbox
  where not_before <= clock_timestamp() and created_at <= clock_timestamp() - $1::interval
  order by not_before limit $2 for update skip locked
)
update outbox o set not_before = clock_timestamp() + $3::interval, tries = o.tries + 1
from due where o.token = due.token and o.part = due.part
returning o.*
"""
_TAKE_NAMED = """
with due as materialized (
  select token, part from outbox where token = any ($1::bigint[]) and not_before <= clock_timestamp()
  for update skip locked
)
update outbox o set not_before = clock_timestamp() + $2::interval, tries = o.tries + 1
from due where o.token = due.token and o.part = due.part
returning o.*
"""
# with the tokens, by the index in any plan: one that is made while the outbox is empty is kept
_OF_KEYS = "token = any ($1::bigint[]) and (token, part) in (select * from unnest($1::bigint[], $2::smallint[]))"
_DELETE = f"delete from outbox where {_OF_KEYS}"  # noqa: S608  # only a constant
_NO_REPLY = f"update outbox set reply_to = null where {_OF_KEYS}"  # noqa: S608  # only a constant
_LATER = """
update outbox o set not_before = clock_timestamp() + make_interval(secs => late.seconds)
from unnest($1::bigint[], $2::smallint[], $3::float8[]) as late(token, part, seconds)
where o.token = any ($1::bigint[]) and o.token = late.token and o.part = late.part
"""
# tokens rise with time, so the oldest row is among the first of the primary key; the whole table need not be read
_LAG = """
select clock_timestamp() - min(created_at) from (
  select created_at from outbox order by token, part limit 100
) oldest
"""


class Resend:
    """The job; `send_now` also serves those who have just ended a command.

    Args:
        database: asyncpg pool.
        publisher: Open or opening.
        user: This process's own RabbitMQ user.
        after_seconds: Age at which a row is due; younger ones are in the hands of the worker that wrote them.
        give_up_seconds: Age at which a row becomes a dead letter.
    """

    def __init__(
        self, database: Any, publisher: Publisher, *, user: str, after_seconds: float, give_up_seconds: float
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._user = user
        self._after = timedelta(seconds=after_seconds)
        self._give_up = timedelta(seconds=give_up_seconds)
        self._rounds = 0
        self._log = get_logger(job="resend")

    async def round(self) -> bool:
        """Send what is due.

        Returns:
            Whether there may be more.
        """
        if self._rounds % _LAG_EVERY_ROUNDS == 0:
            age = await self._database.fetchval(_LAG)
            OUTBOX_LAG.set(age.total_seconds() if age else 0.0)
        self._rounds += 1
        if not self._publisher.is_open:  # it says so itself
            return False
        rows = await self._database.fetch(_TAKE, self._after, _BATCH, _LEASE)
        if rows:
            await self._send_apart_if_need_be(rows)
        return len(rows) == _BATCH

    async def send_now(self, tokens: Sequence[int]) -> None:
        """Send rows that were just written, without waiting until they are due; what fails is sent by a later round.

        Args:
            tokens: Of the rows.
        """
        if not tokens or not self._publisher.is_open:
            return
        try:
            rows = await self._database.fetch(_TAKE_NAMED, list(tokens), _LEASE)
            if rows:
                await self._send(rows)
        except Exception as error:
            if not is_passing(error):
                raise

    async def _send_apart_if_need_be(self, rows: Sequence[Any]) -> None:
        """Send a batch; should one row break it (a kind that this version does not know), it fails alone."""
        try:
            await self._send(rows)
        except (KeyError, ValueError, TypeError) as error:
            if len(rows) > 1:
                for row in rows:
                    await self._send_apart_if_need_be([row])
                return
            (row,) = rows
            self._log.error("reply_postponed", command_id=str(row["id"]), error=repr(error))
            await self._database.execute(_LATER, *_columns(rows), [_backoff_seconds(row["tries"])])

    async def _send(self, rows: Sequence[Any]) -> None:
        first = [_first_message(row, self._user) for row in rows]
        failures = await self._publish(first)
        # a gateway's queue goes with the gateway, and whoever waited there: the event is all that is left to send
        orphans = [row for row, failure in zip(rows, failures, strict=True) if _is_orphan(row, failure)]
        failures = [None if _is_orphan(row, failure) else failure for row, failure in zip(rows, failures, strict=True)]
        confirmed = [row for row, failure in zip(rows, failures, strict=True) if failure is None]
        # a result with a reply has a second message, the event
        orphaned = {_key(row) for row in orphans}
        replied = [
            row
            for row in confirmed
            if row["status"] is not None and row["reply_to"] is not None and _key(row) not in orphaned
        ]
        missing_event = [
            row
            for row, failure in zip(
                replied, await self._publish([_messages(row, self._user)[-1] for row in replied]), strict=True
            )
            if failure is not None
        ]
        unsent_events = {_key(row): row for row in (*missing_event, *orphans)}
        await self._record(rows, failures, list(unsent_events.values()))

    def _is_hopeless(self, row: Any, failure: PublishFailed) -> bool:
        # no answer says nothing about the message: the broker may have been away all day
        refused = isinstance(failure, Unroutable | Refused)
        return refused and datetime.now(UTC) - row["created_at"] > self._give_up

    async def _publish(self, messages: Sequence[Outgoing]) -> list[PublishFailed | None]:
        if not messages:
            return []
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT_SECONDS):
                return await self._publisher.publish_all(messages)
        except TimeoutError:
            return [Unconfirmed("the broker did not answer in time") for _ in messages]

    async def _record(
        self, rows: Sequence[Any], failures: Sequence[PublishFailed | None], missing_event: Sequence[Any]
    ) -> None:
        unsent = {_key(row) for row in missing_event}
        done = [row for row, failure in zip(rows, failures, strict=True) if failure is None and _key(row) not in unsent]
        failed = [(row, failure) for row, failure in zip(rows, failures, strict=True) if failure is not None]
        hopeless = [(row, failure) for row, failure in failed if self._is_hopeless(row, failure)]
        later = [row for row, failure in failed if not self._is_hopeless(row, failure)] + list(missing_event)
        async with acquired(self._database) as connection, connection.transaction():
            if hopeless:
                await insert_dead_letters(connection, [_letter(row, failure) for row, failure in hopeless])
            gone = [*done, *(row for row, _ in hopeless)]
            if gone:
                await connection.execute(_DELETE, *_columns(gone))
            if missing_event:
                await connection.execute(_NO_REPLY, *_columns(missing_event))
            if later:
                await connection.execute(_LATER, *_columns(later), [_backoff_seconds(row["tries"]) for row in later])
        for row in done:
            OUTBOX_RESENT.labels("follow_up" if row["status"] is None else "result").inc()
        if done:
            self._log.info("reply_resent", count=len(done))
        if later:
            self._log.warning(
                "reply_postponed", count=len(later), error=str(failed[0][1]) if failed else "event refused"
            )
        for row, failure in hopeless:
            DEAD_LETTERS.labels(ErrorCode.UNDELIVERABLE.value).inc()
            self._log.error("reply_given_up", command_id=str(row["id"]), publisher=row["publisher"], error=str(failure))


def _is_orphan(row: Any, failure: PublishFailed | None) -> bool:
    own_queue = row["reply_to"] is not None and row["reply_to"].startswith(_GATEWAY_QUEUES)
    return isinstance(failure, Unroutable) and row["status"] is not None and own_queue


def _first_message(row: Any, user: str) -> Outgoing:
    return _messages(row, user)[0]


def _messages(row: Any, user: str) -> list[Outgoing]:
    return outbox_messages(outbox_row(row), user=user)


def _letter(row: Any, failure: PublishFailed) -> DeadLetter:
    kind = KINDS[row["kind"]]
    result = row["status"] is not None
    return DeadLetter(
        reason=ErrorCode.UNDELIVERABLE.value,
        message=f"given up after {row['tries']} tries: {failure}",
        publisher=row["publisher"],
        message_id=str(row["id"]),
        type=kind.result_type if result else kind.type,
        queue=(row["reply_to"] or RESULTS) if result else kind.queue,
        routing_key=routing_key(kind, priority=row["priority"]),
        reply_to=row["reply_to"],
        headers={},
        body=row["body"].encode(),
    )


def _key(row: Any) -> tuple[int, int]:
    return row["token"], row["part"]


def _columns(rows: Sequence[Any]) -> tuple[list[int], list[int]]:
    return [row["token"] for row in rows], [row["part"] for row in rows]


def _backoff_seconds(tries: int) -> float:
    return float(min(_BACKOFF_SECONDS * 2 ** min(tries - 1, 20), _BACKOFF_MAX_SECONDS))
