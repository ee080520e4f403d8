"""A row that PostgreSQL refuses, for whatever reason and in whichever table, costs its own command and no other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from contracts.amqp.publisher import Publisher
from gateway.services.idempotency import identity
from ops.stack.session import Session
from tests.integration.consume_stand import (
    BODIES,
    POOLS,
    all_ended,
    consuming,
    published,
    publishing,
    rows,
    said,
    until,
)
from workers.consume.consumer import Pool
from workers.handler import Command, Outcome

RELAY, AI = POOLS.values()
COLUMNS = {"messages": "command_id"}


@pytest.fixture
async def publisher(services: Session) -> AsyncIterator[Publisher]:
    async with publishing(services) as it:
        yield it


@asynccontextmanager
async def refusing(services: Session, table: str, id_: str) -> AsyncIterator[None]:
    """Have every insert of this command's rows into a table fail, with an error of no class that the product knows."""
    owner = await asyncpg.connect(services.postgres_url("ish_owner"))
    column = COLUMNS.get(table, "id")
    await owner.execute(f"""
        create function refuse_one() returns trigger language plpgsql as $$
        begin if new.{column} = '{id_}' then raise exception 'not this one'; end if; return new; end $$;
        create trigger refuse_one before insert on {table} for each row execute function refuse_one();
    """)
    try:
        yield
    finally:
        await owner.execute(f"drop trigger refuse_one on {table}; drop function refuse_one()")
        await owner.close()


async def speak(_: Command[Any]) -> Outcome:
    return said("fine")


async def states(services: Session, name: str) -> dict[str, tuple[str, str | None]]:
    found = await rows(services, "select id::text, state, error_code from commands where publisher = $1", name)
    return {row["id"]: (row["state"], row["error_code"]) for row in found}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
async def test_a_command_whose_row_is_refused_becomes_a_dead_letter_and_is_answered(
    services: Session, publisher: Publisher, pool: Pool
) -> None:
    name, ids = await published(publisher, pool, 60)
    bad = ids[17]

    async def buried() -> bool:
        return bool(await rows(services, "select 1 from dead_letters where publisher = $1", name))

    async with refusing(services, "commands", bad), consuming(services, pool, speak):
        await all_ended(services, name, len(ids) - 1)
        await until(buried)

    assert set((await states(services, name)).values()) == {("succeeded", None)}
    letters = await rows(services, "select reason, message_id from dead_letters where publisher = $1", name)
    assert letters == [{"reason": "unrepresentable", "message_id": bad}]
    replies = await rows(
        services, "select status, body::json->'error'->>'code' as code from outbox where id = $1::text::uuid", bad
    )
    assert replies == [{"status": "failed", "code": "unrepresentable"}]


@pytest.mark.parametrize(
    ("pool", "table"),
    [(RELAY, "messages"), (RELAY, "outbox"), (AI, "messages"), (AI, "outbox"), (AI, "attempts")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
async def test_a_command_whose_other_rows_are_refused_fails_alone(
    services: Session, publisher: Publisher, pool: Pool, table: str
) -> None:
    name, ids = await published(publisher, pool, 60)
    bad = ids[17]

    async with refusing(services, table, bad), consuming(services, pool, speak):
        await all_ended(services, name, len(ids))

    ended = await states(services, name)
    assert ended.pop(bad) == ("failed", "unrepresentable")
    assert set(ended.values()) == {("succeeded", None)}


async def test_text_that_is_no_unicode_fails_its_own_command(services: Session, publisher: Publisher) -> None:
    name, ids = await published(publisher, AI, 30)
    bad = ids[17]

    async def speak_badly(command: Command[Any]) -> Outcome:
        return said("half of \ud83d" if str(command.id) == bad else "fine")

    async with consuming(services, AI, speak_badly):
        await all_ended(services, name, len(ids))

    ended = await states(services, name)
    assert ended.pop(bad) == ("failed", "unrepresentable")
    assert set(ended.values()) == {("succeeded", None)}


async def test_a_row_that_postgres_refuses_does_not_keep_the_gateway_from_recording_others(
    services: Session, client: httpx.AsyncClient, owner: str
) -> None:
    bad = identity(owner, "bad")

    async with refusing(services, "commands", str(bad)):
        answers = await asyncio.gather(
            *(
                client.post("/api/relay", json=BODIES[RELAY.queue], headers={"Idempotency-Key": key})
                for key in ("one", "bad", "other", "last")
            )
        )

        async def recorded() -> bool:
            found = await rows(services, "select state from commands where owner = $1", owner)
            return [row["state"] for row in found] == ["queued"] * 3

        await until(recorded)

    assert {answer.status_code for answer in answers} == {httpx.codes.ACCEPTED}


async def test_a_result_of_which_no_row_can_be_made_fails_its_own_command(
    services: Session, publisher: Publisher
) -> None:
    name, ids = await published(publisher, AI, 30)
    bad = ids[17]

    async def speak_oddly(command: Command[Any]) -> Outcome:
        outcome = said("fine")
        if str(command.id) == bad:
            outcome.messages[0].metadata["odd"] = object()
        return outcome

    async with consuming(services, AI, speak_oddly):
        await all_ended(services, name, len(ids))

    ended = await states(services, name)
    assert ended.pop(bad) == ("failed", "unrepresentable")
    assert set(ended.values()) == {("succeeded", None)}
