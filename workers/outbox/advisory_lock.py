"""Lets one outbox worker at a time do a job that several would only do several times over."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Any

from contracts.database import acquired


class Job(IntEnum):
    """Advisory lock keys of PostgreSQL, one per job; any constants that nothing else in the database uses."""

    REPUBLISH = 4947101
    HOUSEKEEPING = 4947102
    UPLOADS = 4947103


@asynccontextmanager
async def alone(database: Any, job: Job) -> AsyncIterator[Any]:
    """Hold a job for the time of the block; a lock that is lost with its connection costs only duplicates.

    Args:
        database: asyncpg pool.
        job: The job.

    Yields:
        A connection, which holds the lock; None when another process has the job.
    """
    async with acquired(database) as connection:
        if not await connection.fetchval("select pg_try_advisory_lock($1)", int(job)):
            yield None
            return
        try:
            yield connection
        finally:
            if not connection.is_closed():
                await connection.execute("select pg_advisory_unlock($1)", int(job))
