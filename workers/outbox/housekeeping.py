"""Makes partitions ahead, drops those past the retention, and deletes what has served its time."""

from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.logs import get_logger
from workers.outbox.alone import Job, alone

_BATCH = 5000
_KEYS_BEYOND = timedelta(days=7)
"""A partition is a week: a key outlives the last row that it may stand for."""

_PARTITIONS = "select partition_name, action from maintain_partitions($1)"
_KEYS = """
delete from command_keys where (publisher, id) in (
  select publisher, id from command_keys where day < $1::date limit $2
)
"""
_WORKERS = (
    "delete from workers where greatest(heartbeat_at, started_at, stopped_at) < $1::timestamptz - interval '1 day'"
)
_DELIVERIES = """
delete from deliveries where seq in (
  select seq from deliveries where state <> 'pending' and finished_at < $1 limit $2
)
"""
_DEAD_LETTERS = "delete from dead_letters where seq in (select seq from dead_letters where at < $1 limit $2)"
# Artifacts are large: few in one transaction. Their owners' rows go with them; pieces are removed by `uploads`. The age is
# asked again of the row that is deleted: somebody may have stored the same bytes meanwhile.
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
_ARTIFACTS_BATCH = 100
_LOSSES = "delete from queue_losses where handled_at < $1"


class Housekeeping:
    """The job; one outbox worker at a time does it.

    Args:
        database: asyncpg pool.
        retention_days: Days that finished commands are kept.
        artifact_retention_days: Days that artifacts are kept.
    """

    def __init__(self, database: Any, *, retention_days: int, artifact_retention_days: int) -> None:
        self._database = database
        self._retention = timedelta(days=retention_days)
        self._artifact_retention = timedelta(days=artifact_retention_days)
        self._log = get_logger(job="housekeeping")

    async def round(self) -> bool:
        """Tidy once.

        Returns:
            False.
        """
        now = datetime.now(UTC)
        limit = now - self._retention
        async with alone(self._database, Job.HOUSEKEEPING) as connection:
            if connection is None:
                return False
            await self._partitions(connection)
            deleted = {
                "command_keys": await _in_batches(connection, _KEYS, (limit - _KEYS_BEYOND).date()),
                "deliveries": await _in_batches(connection, _DELIVERIES, limit),
                "dead_letters": await _in_batches(connection, _DEAD_LETTERS, limit),
                "artifacts": await _artifacts(connection, now - self._artifact_retention),
                "workers": _count(await connection.execute(_WORKERS, now)),
                "queue_losses": _count(await connection.execute(_LOSSES, limit)),
            }
            if any(deleted.values()):
                self._log.info("rows_pruned", **deleted)
        return False

    async def _partitions(self, connection: Any) -> None:
        async with connection.transaction():
            # whoever waits for an exclusive lock makes everybody behind it wait: better fail, and try again later
            await connection.execute("set local lock_timeout = '1s'")
            for row in await connection.fetch(_PARTITIONS, self._retention.days):
                self._log.info("partition_changed", partition=row["partition_name"], action=row["action"])


async def _artifacts(connection: Any, limit: datetime) -> int:
    total = 0
    while True:
        count = int(await connection.fetchval(_ARTIFACTS, limit, _ARTIFACTS_BATCH))
        total += count
        if count < _ARTIFACTS_BATCH:
            return total


async def _in_batches(connection: Any, statement: str, limit: Any, *, batch: int = _BATCH) -> int:
    total = 0
    while True:
        count = _count(await connection.execute(statement, limit, batch))
        total += count
        if count < batch:
            return total


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
