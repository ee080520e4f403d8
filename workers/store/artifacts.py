"""Reads artifacts for handlers that put one on a phone, piece by piece; an owner gets only its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

from contracts.errors import ErrorCode, Permanent
from workers.handler import StoredArtifact
from workers.store.transactions import until_answered

FIND = """
select a.size_bytes, a.upload from artifacts a
where a.sha256 = $1 and exists (select from artifact_owners o where o.sha256 = a.sha256 and o.owner = $2)
"""
CONTENT = "select content from artifacts where sha256 = $1"
PIECE = """
select first_byte, content from artifact_pieces where upload = $1 and first_byte <= $2 order by first_byte desc limit 1
"""

ReadArtifact = Callable[[str, str], Awaitable[StoredArtifact | None]]
"""`(owner, sha256)` to what is stored; None when the owner has no such artifact."""


def artifacts_from(database: Any) -> ReadArtifact:
    """The artifacts that PostgreSQL has; waits while that is away.

    Args:
        database: asyncpg pool.
    """

    async def read(owner: str, sha256: str) -> StoredArtifact | None:
        row = await until_answered(lambda: database.fetchrow(FIND, sha256, owner))
        if row is None:
            return None
        size_bytes, upload = int(row["size_bytes"]), row["upload"]

        async def whole() -> AsyncIterator[bytes]:
            content = await until_answered(lambda: database.fetchval(CONTENT, sha256))
            if content is None:
                raise _gone(sha256)
            yield content

        return StoredArtifact(
            size_bytes, whole if upload is None else lambda: _pieces(database, sha256, upload, size_bytes)
        )

    return read


async def _pieces(database: Any, sha256: str, upload: UUID, size_bytes: int) -> AsyncIterator[bytes]:
    position = 0
    while position < size_bytes:
        place = position
        row = await until_answered(lambda: database.fetchrow(PIECE, upload, place))  # noqa: B023  # awaited at once
        piece: bytes = b"" if row is None else row["content"][position - row["first_byte"] :]
        if not piece:
            raise _gone(sha256)
        yield piece
        position += len(piece)


def _gone(sha256: str) -> Permanent:
    return Permanent(ErrorCode.INVALID_PAYLOAD, f"the artifact {sha256} was removed while it was read")
