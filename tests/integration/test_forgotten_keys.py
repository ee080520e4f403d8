"""An id stands for its command for as long as that is kept: afterwards it is a new command's, and nobody stumbles over it."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from contracts.amqp.publisher import Publisher
from ops.stack.session import Session
from tests.integration.consume_stand import BODIES, POOLS, all_ended, consuming, published, publishing, rows, said
from workers.consume.consumer import Pool
from workers.handler import Command, Message, Outcome
from workers.stages import Admitted
from workers.store.claims import claim

LONG_AGO = timedelta(days=200)
RELAY = next(iter(POOLS.values()))


@pytest.fixture
async def publisher(services: Session) -> AsyncIterator[Publisher]:
    async with publishing(services) as it:
        yield it


async def forget(services: Session, publisher: str, *, fingerprint: bytes | None = None) -> None:
    """Make commands of today ones of which the keys and the lines are all that is left, as the retention leaves them."""
    owner = await asyncpg.connect(services.postgres_url("ish_owner"))
    day = (datetime.now(UTC) - LONG_AGO).date()
    await owner.execute("delete from commands where publisher = $1", publisher)
    await owner.execute(
        "update command_keys set day = $2, fingerprint = coalesce($3, fingerprint) where publisher = $1",
        publisher,
        day,
        fingerprint,
    )
    await owner.close()


async def speak(_: Command[Any]) -> Outcome:
    return said("fine")


@pytest.mark.parametrize("fingerprint", [None, b"another body"], ids=["the same body", "another body"])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
async def test_an_id_that_comes_again_after_the_retention_is_a_new_command(
    services: Session, publisher: Publisher, pool: Pool, fingerprint: bytes | None
) -> None:
    name, ids = await published(publisher, pool, 5)
    async with consuming(services, pool, speak):
        await all_ended(services, name, len(ids))
        await forget(services, name, fingerprint=fingerprint)
        await published(publisher, pool, 5, ids=ids, name=name)
        _, innocent = await published(publisher, pool, 5, name=name)
        await all_ended(services, name, len(ids) + len(innocent))

    found = await rows(services, "select id::text, state, error_code from commands where publisher = $1", name)
    assert {(row["state"], row["error_code"]) for row in found} == {("succeeded", None)}
    assert {row["id"] for row in found} == {*ids, *innocent}
    keys = await rows(services, "select distinct day from command_keys where publisher = $1", name)
    assert keys == [{"day": datetime.now(UTC).date()}]
    lines = await rows(
        services, "select command_id::text as id, array_agg(position order by position) as places from messages"
        " where publisher = $1 group by 1", name,
    )  # fmt: skip
    assert {row["id"]: row["places"] for row in lines} == {one: [0, 1] for one in ids} | {one: [0] for one in innocent}


async def test_a_relay_whose_key_was_pruned_stands_behind_its_old_message(
    services: Session, publisher: Publisher
) -> None:
    async def relayed(command: Command[Any]) -> Outcome:
        line = Message(conversation_id="c", sender="user", text=command.payload.message, sent_at=datetime.now(UTC))
        return Outcome({}, messages=(line,))

    name, ids = await published(publisher, RELAY, 3)
    owner = await asyncpg.connect(services.postgres_url("ish_owner"))
    async with consuming(services, RELAY, relayed):
        await all_ended(services, name, len(ids))
        await forget(services, name)
        await owner.execute("delete from command_keys where publisher = $1", name)
        await published(publisher, RELAY, 3, ids=ids, name=name)
        await all_ended(services, name, len(ids))
    await owner.close()

    found = await rows(services, "select state, error_code from commands where publisher = $1", name)
    assert found == [{"state": "succeeded", "error_code": None}] * 3
    lines = await rows(services, "select position from messages where publisher = $1 order by 1", name)
    assert [row["position"] for row in lines] == [0, 0, 0, 1, 1, 1]


async def test_a_key_that_was_reserved_long_ago_and_never_used_is_claimed_as_new(
    services: Session, make_admitted: Callable[..., Admitted]
) -> None:
    one = make_admitted(publisher=f"reserved-{uuid4()}")
    owner = await asyncpg.connect(services.postgres_url("ish_owner"))
    await owner.execute(
        "insert into command_keys (publisher, id, fingerprint, day) values ($1, $2, $3, $4)",
        *one.key,
        one.fingerprint,
        (datetime.now(UTC) - LONG_AGO).date(),
    )
    await owner.close()
    worker = await asyncpg.connect(services.postgres_url("ish_worker"))

    claimed, left = await claim(worker, [one], holder=uuid4(), lease_seconds=6, in_flight=[])
    await worker.close()

    assert [(each.admitted, each.day, each.attempt) for each in claimed] == [(one, datetime.now(UTC).date(), 1)]
    assert left == []


async def test_the_gateway_records_a_new_command_under_an_idempotency_key_of_long_ago(
    services: Session, client: httpx.AsyncClient
) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    first = (await client.post("/api/relay", json=BODIES["ish.relay"], headers=headers)).json()
    owner = await asyncpg.connect(services.postgres_url("ish_owner"))
    await owner.execute("delete from commands where id = $1", UUID(first["id"]))
    await owner.execute(
        "update command_keys set day = $2 where id = $1", UUID(first["id"]), (datetime.now(UTC) - LONG_AGO).date()
    )
    await owner.close()

    other = BODIES["ish.relay"] | {"message": "another"}
    again = await client.post("/api/relay", json=other, headers=headers)

    assert again.status_code == httpx.codes.ACCEPTED
    assert again.json()["id"] == first["id"]
    shown = await client.get(f"/api/commands/{first['id']}")
    assert (shown.status_code, shown.json()["status"]) == (200, "queued")
    payloads = await rows(
        services, "select payload::json->>'message' as message from commands where id = $1", UUID(first["id"])
    )
    assert payloads == [{"message": "another"}]
