"""What uploads leave is removed: given up, never finished, already there, and past the artifacts' retention."""

from uuid import UUID, uuid4

import asyncpg

from ops.stack.session import Session
from tests.integration.outbox_stand import retention
from workers.outbox.housekeeping import Housekeeping
from workers.outbox.uploads import PruneUploads


async def insert(owner: asyncpg.Connection, state: str, *, age: str = "0", pieces: int = 70) -> UUID:
    upload: UUID = await owner.fetchval(
        "insert into artifact_uploads (owner, state, media_type, touched_at) "
        "values ('o', $1, 'x/y', now() - $2::text::interval) returning id",
        state,
        age,
    )
    await owner.execute(
        "insert into artifact_pieces select $1, n, 'x' from generate_series(0, $2::int - 1) n", upload, pieces
    )
    return upload


async def left(owner: asyncpg.Connection, upload: UUID) -> tuple[int, int]:
    return (
        await owner.fetchval("select count(*) from artifact_uploads where id = $1", upload),
        await owner.fetchval("select count(*) from artifact_pieces where upload = $1", upload),
    )


async def test_only_what_is_needed_stays(services: Session) -> None:
    owner = await asyncpg.connect(services.postgres_url("ish_owner"), timeout=10)
    async with asyncpg.create_pool(services.postgres_url("ish_outbox"), min_size=1, max_size=2) as pool:
        fresh = await insert(owner, "open")
        stale = await insert(owner, "open", age="2 hours")
        given_up = await insert(owner, "discarded")
        duplicate = await insert(owner, "duplicate")
        old_duplicate = await insert(owner, "duplicate", age="2 days")
        stored = await insert(owner, "stored", age="9 days")

        await PruneUploads(pool, expiry_seconds=3600).round()

        assert await left(owner, fresh) == (1, 70)
        assert await left(owner, stale) == (0, 0)
        assert await left(owner, given_up) == (0, 0)
        assert await left(owner, duplicate) == (1, 0)
        assert await left(owner, old_duplicate) == (0, 0)
        assert await left(owner, stored) == (1, 70)
        await owner.execute("delete from artifact_uploads where id = any ($1)", [fresh, duplicate, stored])
    await owner.close()


async def test_an_uploaded_artifact_goes_with_its_pieces_when_it_is_old(services: Session) -> None:
    owner = await asyncpg.connect(services.postgres_url("ish_owner"), timeout=10)
    async with asyncpg.create_pool(services.postgres_url("ish_outbox"), min_size=1, max_size=2) as pool:
        upload = await insert(owner, "stored", age="9 days")
        name = uuid4().hex * 2
        await owner.execute(
            "insert into artifacts values ($1, 'x/y', 70, null, now() - interval '9 days', $2)", name, upload
        )

        await Housekeeping(pool, retention(commands=30, artifacts=8)).round()
        await PruneUploads(pool, expiry_seconds=3600).round()

        assert await left(owner, upload) == (0, 0)
        assert await owner.fetchval("select count(*) from artifacts where sha256 = $1", name) == 0
    await owner.close()
