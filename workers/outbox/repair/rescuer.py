"""Publishes again the commands whose message was lost; workers absorb what they know already by publisher and id.

| reason | which commands |
| --- | --- |
| queue_lost | those recorded before their queue was found missing |
| overdue | `retrying`, and long past their time: the wait queue did not bring them back |
| orphaned | `running`, and their worker is long gone: the broker would have delivered them to another |
| forgotten | `queued`, while their queue has been empty for longer than any worker takes to claim |

The waits grow by four with every time a command was published again, up to an hour.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from contracts.amqp.messages import command_message
from contracts.amqp.publisher import Outgoing, Publisher, Unconfirmed
from contracts.envelope import waiting
from contracts.logs import get_logger
from contracts.metrics import REPUBLISHED
from contracts.restarting import tell_fault
from contracts.tables import ENVELOPE_COLUMNS, envelope_of
from contracts.topology import (
    DEVICE_QUEUE_PREFIX,
    RETRY_LEVELS,
    ROUTING_KEYS,
    WORK_QUEUES,
    command_key,
    retry_queue,
)
from workers.outbox.advisory_lock import Job, alone

_BATCH = 500
_SECOND_PASS_SECONDS = 60
"""A loss is gone through once more after this, for commands that the gateway recorded late."""
_GRACE = timedelta(seconds=15)
_FORGOTTEN = timedelta(seconds=60)
_START = (datetime(1970, 1, 1, tzinfo=UTC), "", UUID(int=0))

_LOSSES = """
select seq, queue, noticed_at, noticed_at < clock_timestamp() - make_interval(secs => $1) as again
from queue_losses where handled_at is null order by seq limit 100
"""
_HANDLED = "update queue_losses set handled_at = clock_timestamp() where seq = $1 and noticed_at = $2"

_IN_LOST_QUEUE = f"""
select {ENVELOPE_COLUMNS}, payload, routing_key, retry_at from commands
where state in ('queued', 'retrying') and routing_key = $1 and accepted_at < $2
  and (case when $3 then state = 'retrying' else state = 'queued' or retry_at < $2 end)
  and (deadline_at, publisher, id) > ($4, $5, $6)
order by deadline_at, publisher, id limit $7
"""  # noqa: S608  # only constants
_BACKOFF = "least(interval '1 hour', $1::interval * power(4, least(c.republished, 8)))"
_OVERDUE = f"""
select publisher, id, day from commands c
where state = 'retrying' and retry_at < clock_timestamp() - $1::interval
  and retry_at < clock_timestamp() - {_BACKOFF}
order by retry_at limit $2 for update skip locked
"""  # noqa: S608  # only constants
_ORPHANED = f"""
select c.publisher, c.id, c.day from commands c left join workers x on x.incarnation = c.holder
where c.state = 'running'
  and (x.incarnation is null or x.heartbeat_at < clock_timestamp() - $3::interval)
  and greatest(coalesce(nullif(x.heartbeat_at, '-infinity'), x.stopped_at), c.started_at)
    < clock_timestamp() - $3::interval - {_BACKOFF}
order by c.started_at limit $2 for update of c skip locked
"""  # noqa: S608  # only constants
_FORGOTTEN_ONES = f"""
select publisher, id, day from commands c
where state = 'queued' and routing_key = any ($3::text[]) and accepted_at < clock_timestamp() - {_BACKOFF}
  and deadline_at > clock_timestamp()
order by deadline_at limit $2 for update skip locked
"""  # noqa: S608  # only constants


def _taking(query: str) -> str:
    """Counting and taking are one statement, so that two outbox workers do not publish the same."""
    return f"""
with due as materialized ({query})
update commands c set republished = c.republished + 1 from due
where (c.publisher, c.id, c.day) = (due.publisher, due.id, due.day)
returning {", ".join(f"c.{name.strip()}" for name in ENVELOPE_COLUMNS.split(","))}, c.payload, c.routing_key, c.retry_at
"""  # noqa: S608  # only constants


class Republish:
    """The job.

    Args:
        database: asyncpg pool.
        publisher: Open or opening.
        user: This process's own RabbitMQ user.
        lease_seconds: Age of a heartbeat at which its worker is gone.
        ready: Messages waiting in each queue, as `guard` saw them last.
    """

    def __init__(
        self,
        database: Any,
        publisher: Publisher,
        *,
        user: str,
        lease_seconds: float,
        ready: Callable[[], Mapping[str, int]],
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._user = user
        self._lease = timedelta(seconds=lease_seconds)
        self._ready = ready
        self._first_passes: dict[int, datetime] = {}
        """When the loss was noticed that was gone through once, by its number; it may be noticed again."""
        self._log = get_logger(job="republish")

    async def lost_queues(self) -> bool:
        """Go through the losses that `guard` noted.

        Returns:
            False.

        Raises:
            PublishFailed: The broker takes nothing now; it starts over.
        """
        async with alone(self._database, Job.REPUBLISH) as connection:
            if connection is None:
                return False
            for loss in await connection.fetch(_LOSSES, float(_SECOND_PASS_SECONDS)):
                if self._first_passes.get(loss["seq"]) == loss["noticed_at"] and not loss["again"]:
                    continue
                count = await self._lost(connection, loss)
                self._first_passes[loss["seq"]] = loss["noticed_at"]
                if count:
                    self._log.warning("commands_republished", reason="queue_lost", queue=loss["queue"], count=count)
                if loss["again"]:
                    await connection.execute(_HANDLED, loss["seq"], loss["noticed_at"])
                    del self._first_passes[loss["seq"]]
        return False

    async def overdue(self) -> bool:
        """Publish what should have come back from its wait queue."""
        return await self._take_and_publish("overdue", _taking(_OVERDUE), _GRACE)

    async def orphaned(self) -> bool:
        """Publish what a dead worker left running."""
        return await self._take_and_publish("orphaned", _taking(_ORPHANED), _GRACE, self._lease)

    async def forgotten(self) -> bool:
        """Publish what waits for a queue that has nothing waiting."""
        empty = [command_key(queue) for queue, ready in self._ready().items() if ready == 0 and _is_of_work(queue)]
        if not empty:
            return False
        return await self._take_and_publish("forgotten", _taking(_FORGOTTEN_ONES), _FORGOTTEN, empty)

    async def _lost(self, connection: Any, loss: Any) -> int:
        found = _pool_of(loss["queue"])
        if found is None:
            return 0
        routing_key, is_wait_queue = found
        count, place = 0, _START
        while True:
            rows = await connection.fetch(
                _IN_LOST_QUEUE, routing_key, loss["noticed_at"], is_wait_queue, *place, _BATCH
            )
            if not rows:
                return count
            await self._publish(rows, "queue_lost")
            count += len(rows)
            place = (rows[-1]["deadline_at"], rows[-1]["publisher"], rows[-1]["id"])

    async def _take_and_publish(self, reason: str, statement: str, base: timedelta, *arguments: Any) -> bool:
        if not self._publisher.is_open:  # it says so itself
            return False
        rows = await self._database.fetch(statement, base, _BATCH, *arguments)
        if rows:
            await self._publish(rows, reason)
            self._log.warning("commands_republished", reason=reason, count=len(rows))
        return len(rows) == _BATCH

    async def _publish(self, rows: Sequence[Any], reason: str) -> None:
        if not self._publisher.is_open:
            raise Unconfirmed("not connected to the broker")
        messages: list[Outgoing] = []
        for row in rows:
            try:
                messages.append(self._message(row))
            except Exception as error:  # noqa: BLE001  # a kind that this version does not know: the others are sent
                tell_fault("republish", error, command_id=str(row["id"]))
        failures = await self._publisher.publish_all(messages)
        REPUBLISHED.labels(reason).inc(sum(failure is None for failure in failures))
        for failure in failures:
            if failure is not None:
                raise failure

    def _message(self, row: Mapping[str, Any]) -> Outgoing:
        envelope = envelope_of(row)
        if row["retry_at"] is not None:
            envelope = waiting(envelope, not_before=row["retry_at"], attempt=row["attempt"] + 1)
        return command_message(envelope, row["payload"].encode(), user=self._user, key=row["routing_key"])


def _is_of_work(queue: str) -> bool:
    """Whether commands are published to a queue, so that one that is not in it may have been lost."""
    return queue in WORK_QUEUES or queue.startswith(DEVICE_QUEUE_PREFIX)


def _pool_of(queue: str) -> tuple[str, bool] | None:
    """The routing key whose commands were in a queue, and whether it is a wait queue."""
    for work_queue in WORK_QUEUES:
        if queue == work_queue:
            return ROUTING_KEYS[work_queue], False
        if queue in {retry_queue(work_queue, level) for level in RETRY_LEVELS}:
            return ROUTING_KEYS[work_queue], True
    if queue.startswith(DEVICE_QUEUE_PREFIX):
        return command_key(queue), False
    return None
