"""Takes the bytes of uploads: a piece at a time into PostgreSQL, in bounded memory however many send at once."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

from starlette.types import Receive

from gateway.http.problems import Problem, ProblemType, invalid
from gateway.http.request import Disconnected
from gateway.services import upload_rows
from gateway.services.database import Database
from gateway.services.upload_rows import PIECE_BYTES

_MAX_AT_ONCE = 32
"""Requests that send at once; each holds at most two pieces."""
_MAX_AT_ONCE_OF_ONE = 8
_IDLE_SECONDS = 30.0
"""A body that stands still for so long has been left."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What is known of the whole upload."""

    size_bytes: int | None
    sha256: str | None


class Uploads:
    """What the uploads of one gateway share.

    Args:
        database: Where pieces go.
        connections: That the gateway has to PostgreSQL; all but two may write pieces, and one at least.
        limit_bytes: The largest upload.
        idle_seconds: How long a body may stand still.
    """

    def __init__(
        self, database: Database, *, connections: int, limit_bytes: int, idle_seconds: float = _IDLE_SECONDS
    ) -> None:
        self._database = database
        self._writing = asyncio.Semaphore(max(1, connections - 2))
        self._limit_bytes = limit_bytes
        self._idle_seconds = idle_seconds
        self._sending: Counter[str] = Counter()

    @asynccontextmanager
    async def room(self, owner: str) -> AsyncIterator[None]:
        """A place for one request that sends.

        Args:
            owner: Whose it is.

        Raises:
            Problem: There is none now.
        """
        if self._sending.total() >= _MAX_AT_ONCE or self._sending[owner] >= _MAX_AT_ONCE_OF_ONE:
            raise Problem(ProblemType.UPLOADS_BUSY, "Nothing of it was taken; send it again in a moment.")
        self._sending[owner] += 1
        try:
            yield
        finally:
            self._sending[owner] -= 1
            self._sending += Counter()  # forgets owners that have none

    def check_size(self, size_bytes: int) -> None:
        """Refuse what is too large before it is sent.

        Raises:
            Problem: It is.
        """
        if size_bytes > self._limit_bytes:
            raise _too_large(self._limit_bytes)

    async def take(
        self, receive: Receive, owner: str, upload: UUID, *, offset: int, whole: Whole, complete: bool
    ) -> tuple[int, str | None]:
        """Append a request's body.

        Args:
            receive: ASGI's.
            owner: Whose upload it is.
            upload: Its id.
            offset: Place of the body's first byte.
            whole: What is known of the whole.
            complete: Whether the body's last byte is the last of the whole: then it becomes an artifact.

        Returns:
            The upload's length now; and the SHA-256 of the whole, when it is complete.

        Raises:
            Problem: It is too large, stands still, has another digest than declared, or another request appends.
            Disconnected: The client went away; what came is kept.
            DatabaseAway: PostgreSQL does not answer; what it has is kept.
        """
        writer = uuid4()
        if not await upload_rows.begin(
            self._database,
            owner,
            upload,
            writer=writer,
            offset=offset,
            size_bytes=whole.size_bytes,
            sha256=whole.sha256,
        ):
            raise superseded()
        length, digest = await self._store(receive, upload, writer, offset=offset, size_bytes=whole.size_bytes)
        if not complete:
            return length, None
        if whole.size_bytes is not None and length != whole.size_bytes:
            raise invalid("Upload-Length", f"says {whole.size_bytes} bytes, and {length} have come")
        sha256 = digest.hexdigest() if offset == 0 else await self._digest(upload, length)
        if whole.sha256 not in (None, sha256):
            await upload_rows.discard(self._database, owner, upload)
            sentence = f"The bytes that came have {sha256}; nothing was stored."
            raise Problem(ProblemType.DIGEST_MISMATCH, sentence, members={"sha256": sha256})
        if not await upload_rows.finish(self._database, upload, writer=writer, sha256=sha256, size_bytes=length):
            raise superseded()
        return length, sha256

    async def _store(
        self, receive: Receive, upload: UUID, writer: UUID, *, offset: int, size_bytes: int | None
    ) -> tuple[int, "hashlib._Hash"]:
        """Write a body in pieces; the upload's length then, and the digest of this body."""
        most = self._limit_bytes if size_bytes is None else min(self._limit_bytes, size_bytes)
        digest = hashlib.sha256()
        pending = bytearray()
        try:
            async for part in self._body(receive):
                if offset + len(pending) + len(part) > most:
                    raise _too_large(most) if most == self._limit_bytes else _longer(most)
                digest.update(part)
                pending += part
                while len(pending) >= PIECE_BYTES:
                    await self._write(upload, writer, offset, bytes(pending[:PIECE_BYTES]))
                    offset += PIECE_BYTES
                    del pending[:PIECE_BYTES]
        except Disconnected:
            await self._write(upload, writer, offset, bytes(pending))
            raise
        await self._write(upload, writer, offset, bytes(pending))
        return offset + len(pending), digest

    async def _body(self, receive: Receive) -> AsyncIterator[bytes]:
        more = True
        while more:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    message = await receive()
            except TimeoutError:
                sentence = f"Nothing has come for {self._idle_seconds:g} s; what came before is kept."
                raise Problem(ProblemType.BODY_STALLED, sentence, headers={"Connection": "close"}) from None
            if message["type"] != "http.request":
                raise Disconnected
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def _write(self, upload: UUID, writer: UUID, offset: int, piece: bytes) -> None:
        if not piece:
            return
        async with self._writing:
            written = await upload_rows.append(self._database, upload, writer=writer, offset=offset, piece=piece)
        if not written:
            raise superseded()

    async def _digest(self, upload: UUID, size_bytes: int) -> str:
        """Of an upload that came in several requests: its pieces are read again."""
        digest, position = hashlib.sha256(), 0
        while position < size_bytes:
            async with self._writing:
                piece = await upload_rows.piece_at(self._database, upload, position)
            if piece is None:
                raise superseded()
            await asyncio.to_thread(digest.update, piece)
            position += len(piece)
        return digest.hexdigest()


def superseded() -> Problem:
    """Another request appends to the same upload, or has given it up."""
    return Problem(
        ProblemType.UPLOAD_CONFLICT,
        "Another request appends to it, or has ended it; ask how far it is and go on there.",
    )


def _too_large(limit_bytes: int) -> Problem:
    return Problem(ProblemType.BODY_TOO_LARGE, f"The limit of an upload is {limit_bytes} bytes.")


def _longer(size_bytes: int) -> Problem:
    return invalid("Upload-Length", f"says {size_bytes} bytes, and more have come")
