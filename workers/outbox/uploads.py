"""Removes what uploads leave: those that were given up or never finished, and the pieces that no artifact needs."""

from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.logs import get_logger
from contracts.metrics import PRUNED
from workers.outbox.advisory_lock import Job, alone

_BATCH = 64
"""Pieces in one transaction; a piece has at most 1 MiB."""
_KEEP_DUPLICATES = timedelta(days=1)
"""Who was cut off at the last part asks for the upload again, and is told which artifact it became."""

_EXPIRE = "update artifact_uploads set state = 'discarded' where state = 'open' and touched_at < $1"
_PIECES = """
delete from artifact_pieces where (upload, first_byte) in (
  select p.upload, p.first_byte from artifact_uploads u join artifact_pieces p on p.upload = u.id
  where u.state in ('duplicate', 'discarded') limit $1
)
"""
_ROWS = """
delete from artifact_uploads u where (u.state = 'discarded' or u.state = 'duplicate' and u.touched_at < $1)
  and not exists (select from artifact_pieces p where p.upload = u.id)
"""


class PruneUploads:
    """The job; one outbox worker at a time does it.

    Args:
        database: asyncpg pool.
        expiry_seconds: Time without a new byte after which an unfinished upload is removed.
    """

    def __init__(self, database: Any, *, expiry_seconds: float) -> None:
        self._database = database
        self._expiry = timedelta(seconds=expiry_seconds)
        self._log = get_logger(job="uploads")

    async def round(self) -> bool:
        """Remove once.

        Returns:
            False.
        """
        now = datetime.now(UTC)
        async with alone(self._database, Job.UPLOADS) as connection:
            if connection is None:
                return False
            expired = _count(await connection.execute(_EXPIRE, now - self._expiry))
            pieces = 0
            while count := _count(await connection.execute(_PIECES, _BATCH)):
                pieces += count
            rows = _count(await connection.execute(_ROWS, now - _KEEP_DUPLICATES))
            PRUNED.labels("artifact_uploads").inc(rows)
            if expired or pieces or rows:
                self._log.info("uploads_pruned", expired=expired, pieces=pieces, uploads=rows)
        return False


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
