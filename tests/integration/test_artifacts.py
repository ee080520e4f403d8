import hashlib
from uuid import uuid4

from ops.stack.session import Session
from tests.integration.gateway_process import database
from workers.store.artifacts import ReadArtifact, artifacts_from


async def read_whole(read: ReadArtifact, owner: str, name: str) -> list[bytes] | None:
    stored = await read(owner, name)
    return None if stored is None else [piece async for piece in stored.pieces()]


async def test_a_worker_reads_an_artifact_for_its_owner_only(services: Session) -> None:
    content = uuid4().bytes
    name = hashlib.sha256(content).hexdigest()
    async with database(services, "ish_worker") as connection:
        await connection.execute("insert into artifacts values ($1, 'image/png', $2, $3)", name, len(content), content)
        await connection.execute("insert into artifact_owners values ($1, 'me', 'gateway', $2)", name, uuid4())
        read = artifacts_from(connection)

        assert await read_whole(read, "me", name) == [content]
        assert await read_whole(read, "somebody else", name) is None
        assert await read_whole(read, "me", "0" * 64) is None


async def test_what_was_uploaded_is_read_piece_by_piece(services: Session) -> None:
    name, upload = hashlib.sha256(uuid4().bytes).hexdigest(), uuid4()
    async with database(services, "ish_gateway") as gateway:
        await gateway.executemany(
            "insert into artifact_pieces values ($1, $2, $3)", [(upload, 0, b"abc"), (upload, 3, b"de")]
        )
        await gateway.execute("insert into artifacts values ($1, 'x/y', 5, null, default, $2)", name, upload)
        await gateway.execute("insert into artifact_owners values ($1, 'me', 'gateway', $2)", name, upload)
    async with database(services, "ish_worker") as connection:
        stored = await artifacts_from(connection)("me", name)
        assert stored is not None

        assert stored.size_bytes == 5
        assert [piece async for piece in stored.pieces()] == [b"abc", b"de"]
