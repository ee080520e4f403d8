"""Reads artifacts for handlers that put one on a phone; an owner gets only its own."""

from collections.abc import Awaitable, Callable
from typing import Any

from workers.transactions import until_answered

READ = """
select a.content from artifacts a
where a.sha256 = $1 and exists (select from artifact_owners o where o.sha256 = a.sha256 and o.owner = $2)
"""

ReadArtifact = Callable[[str, str], Awaitable[bytes | None]]
"""`(owner, sha256)` to the content; None when the owner has no such artifact."""


def artifacts_from(database: Any) -> ReadArtifact:
    """The artifacts that PostgreSQL has; waits while that is away.

    Args:
        database: asyncpg pool.
    """

    async def read(owner: str, sha256: str) -> bytes | None:
        async def attempt() -> Any:
            return await database.fetchval(READ, sha256, owner)

        content: bytes | None = await until_answered(attempt)
        return content

    return read
