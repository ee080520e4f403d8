import hashlib
from uuid import uuid4

from ops.stack.session import Session
from tests.integration.gateway_process import database
from workers.artifacts import artifacts_from


async def test_a_worker_reads_an_artifact_for_its_owner_only(services: Session) -> None:
    content = uuid4().bytes
    name = hashlib.sha256(content).hexdigest()
    async with database(services, "ish_worker") as connection:
        await connection.execute("insert into artifacts values ($1, 'image/png', $2, $3)", name, len(content), content)
        await connection.execute("insert into artifact_owners values ($1, 'me', 'gateway', $2)", name, uuid4())
        read = artifacts_from(connection)

        assert await read("me", name) == content
        assert await read("somebody else", name) is None
        assert await read("me", "0" * 64) is None
