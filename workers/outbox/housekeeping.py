"""Makes partitions ahead, drops those past the retention, and deletes what has served its time (ops/docs/retention.md).

What the outbox worker may not delete itself is deleted by functions of the tables' owner, which check its age again. All
of it goes in batches, each a transaction of its own, so that nobody waits long for a lock.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self

from contracts.logs import get_logger
from contracts.metrics import PRUNED
from contracts.restarting import tell_fault
from contracts.settings import Settings
from workers.outbox.advisory_lock import Job, alone

_BATCH = 5000
_ARTIFACTS_BATCH = 100
"""Artifacts are large."""
_CONVERSATIONS_BATCH = 500

_PARTITIONS = "select partition_name, action from maintain_partitions($1)"
_KEYS = "select prune_keys($1)"
_MESSAGES = "select * from prune_messages($1, $2, $3, $4, $5)"
_CONVERSATIONS = "select * from prune_conversations($1, $2, $3, $4)"
_AUDIT_LOG = "select prune_audit_log($1, $2)"
_API_KEYS = "select prune_api_keys($1, $2)"
_TARGETS = "select prune_targets($1, $2)"
_DEVICES = "select prune_devices($1, $2)"
_WORKERS = (
    "delete from workers where greatest(heartbeat_at, started_at, stopped_at) < $1::timestamptz - interval '1 day'"
)
_DELIVERIES = """
with gone as (
  delete from deliveries where seq in (
    select seq from deliveries where state <> 'pending' and finished_at < $1 limit $2
  )
  returning 1
)
select count(*) from gone
"""
_DEAD_LETTERS = """
with gone as (
  delete from dead_letters where seq in (select seq from dead_letters where at < $1 limit $2) returning 1
)
select count(*) from gone
"""
# Their owners' rows go with them; pieces are removed by `uploads`. The age is asked again of the row that is deleted:
# somebody may have stored the same bytes meanwhile.
_ARTIFACTS = """
with gone as (
  delete from artifacts where created_at < $1 and sha256 in (
    select sha256 from artifacts where created_at < $1 order by created_at limit $2
  )
  returning upload
),
uploads as (
  update artifact_uploads set state = 'discarded' where id in (select upload from gone where upload is not null)
)
select count(*) from gone
"""
_LOSSES = "delete from queue_losses where handled_at < $1"
_TURNS = "delete from delivery_turns where until < $1::timestamptz - interval '1 day'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many days things are kept; at least 1 each."""

    commands: int
    """Finished commands with their keys and attempts, ended deliveries, dead letters."""
    artifacts: int
    messages: int
    """Recorded lines, and conversations without any."""
    audit_log: int
    api_keys: int
    """After they were revoked or ran out."""
    targets: int
    """After they were removed."""
    devices: int
    """After a worker last saw them."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """As configured.

        Args:
            settings: Of this process.
        """
        return cls(
            commands=settings.retention_days,
            artifacts=settings.artifact_retention_days,
            messages=settings.message_retention_days,
            audit_log=settings.audit_retention_days,
            api_keys=settings.key_retention_days,
            targets=settings.target_retention_days,
            devices=settings.device_retention_days,
        )


class Housekeeping:
    """The job; one outbox worker at a time does it.

    Args:
        database: asyncpg pool.
        retention: How long things are kept.
        batch: Maximum number of rows deleted in one transaction.
    """

    def __init__(self, database: Any, retention: Retention, *, batch: int = _BATCH) -> None:
        self._database = database
        self._retention = retention
        self._batch = batch
        self._log = get_logger(job="housekeeping")

    async def round(self) -> bool:
        """Tidy once; what fails for one kind is told, and the others are tidied.

        Returns:
            False.

        Raises:
            Exception: The connection is gone.
        """
        deleted: dict[str, int] = {}
        async with alone(self._database, Job.HOUSEKEEPING) as connection:
            if connection is None:
                return False
            for kind, prune in self._kinds(connection).items():
                try:
                    count = await prune()
                except Exception as error:
                    if connection.is_closed():
                        raise
                    tell_fault("housekeeping", error, kind=kind)
                    continue
                if count:
                    deleted[kind] = count
                    PRUNED.labels(kind).inc(count)
        if deleted:
            self._log.info("rows_pruned", **deleted)
        return False

    def _kinds(self, connection: Any) -> dict[str, Callable[[], Awaitable[int]]]:
        """What is pruned, in this order: what names something goes before it."""
        kept, now, batch = self._retention, datetime.now(UTC), self._batch
        limit = now - timedelta(days=kept.commands)
        rows, visiting, at_once = (partial(one, connection) for one in (_in_batches, _visiting, _at_once))
        return {
            "partitions": partial(self._partitions, connection),
            # right after the partitions: a key goes with its command
            "command_keys": partial(rows, _KEYS, batch=batch),
            "deliveries": partial(rows, _DELIVERIES, limit, batch=batch),
            "dead_letters": partial(rows, _DEAD_LETTERS, limit, batch=batch),
            "artifacts": partial(rows, _ARTIFACTS, now - timedelta(days=kept.artifacts), batch=_ARTIFACTS_BATCH),
            "messages": partial(visiting, _MESSAGES, kept.messages, _CONVERSATIONS_BATCH, batch),
            "conversations": partial(visiting, _CONVERSATIONS, kept.messages, _CONVERSATIONS_BATCH),
            "audit_log": partial(rows, _AUDIT_LOG, kept.audit_log, batch=batch),
            "api_keys": partial(rows, _API_KEYS, kept.api_keys, batch=batch),
            # after the deliveries that name them
            "targets": partial(rows, _TARGETS, kept.targets, batch=batch),
            "workers": partial(at_once, _WORKERS, now),
            # after the workers that held them
            "devices": partial(rows, _DEVICES, kept.devices, batch=batch),
            "queue_losses": partial(at_once, _LOSSES, limit),
            "delivery_turns": partial(at_once, _TURNS, now),
        }

    async def _partitions(self, connection: Any) -> int:
        async with connection.transaction():
            # whoever waits for an exclusive lock makes everybody behind it wait: better fail, and try again later
            await connection.execute("set local lock_timeout = '1s'")
            rows = await connection.fetch(_PARTITIONS, self._retention.commands)
        for row in rows:
            self._log.info("partition_changed", partition=row["partition_name"], action=row["action"])
        return sum(row["action"] == "dropped" for row in rows)


async def _in_batches(connection: Any, statement: str, *arguments: Any, batch: int) -> int:
    """Repeat a statement, whose last argument is the batch and whose value the rows deleted, until a batch is not full."""
    total = 0
    while True:
        count = int(await connection.fetchval(statement, *arguments, batch))
        total += count
        if count < batch:
            return total


async def _visiting(connection: Any, statement: str, *arguments: Any) -> int:
    """Repeat a statement that visits some conversations at a time, until it has visited all."""
    total, owner, conversation = 0, "", ""
    while True:
        row = await connection.fetchrow(statement, owner, conversation, *arguments)
        total += int(row["removed"])
        if row["next_owner"] is None:
            return total
        owner, conversation = row["next_owner"], row["next_conversation"]


async def _at_once(connection: Any, statement: str, *arguments: Any) -> int:
    """Run a statement that deletes few rows."""
    status: str = await connection.execute(statement, *arguments)
    return int(status.rpartition(" ")[2])
