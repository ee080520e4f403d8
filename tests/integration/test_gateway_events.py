"""A command followed while it runs: its states, its answer's text, its result; cut off and come again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from redis.asyncio import Redis

from contracts.database import SERVER_SETTINGS
from contracts.tokens import MAX_ENTRIES, stream_key
from gateway.services.progress import PROGRESS
from ops.admin import keys
from ops.stack.session import Session
from tests.integration.event_client import Events, follow, text_of
from tests.integration.gateway_process import (
    GatewayProcess,
    database,
    eventually,
    finish,
    frozen,
    gateway_process,
    post,
    recorded,
)
from workers.ai.answers.streaming import TokenStreams

QUESTION = {"prompt": "hello", "stream": True}


@pytest.fixture
async def redis(services: Session) -> AsyncIterator[Redis]:
    one = Redis.from_url(services.redis_url)
    yield one
    await one.aclose()


async def _ask(client: httpx.AsyncClient) -> str:
    return str((await post(client, "/api/send", json=QUESTION))["id"])


async def _move(services: Session, command_id: str, state: str, attempt: int) -> None:
    await eventually(lambda: recorded(services, command_id))
    async with database(services, "ish_worker") as connection:
        await connection.execute(
            "update commands set state = $2, attempt = $3 where id = $1", UUID(command_id), state, attempt
        )


async def _token(events: Events) -> Any:
    [*_, token] = await events.until("token")
    return token


@pytest.mark.usefixtures("no_workers")
async def test_states_tokens_and_the_result_come_in_order_and_the_stream_ends(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    command_id = await _ask(client)
    writer = streams.writer("gateway", UUID(command_id))
    async with follow(client, command_id) as events:
        queued = await events.next()
        await _move(services, command_id, "running", 1)
        running = await events.next()
        writer.begin("a")
        writer.write("Hello")
        first = await _token(events)
        writer.write(", ")
        writer.write("world")
        await writer.end()
        result = await finish(services, command_id, reply=False, output={"text": "Hello, world"})
        rest = await events.rest()

    assert queued is not None
    assert running is not None
    no_worker = {"reason": "worker", "message": "no ai worker is running"}
    assert (queued.name, queued.data) == ("state", {"status": "queued", "attempt": 0, "waiting_for": no_worker})
    assert (running.name, running.data) == ("state", {"status": "running", "attempt": 1})
    assert first.data == {"text": "Hello"}
    assert first.id
    assert text_of([first, *rest]) == "Hello, world"
    assert [one.name for one in rest if one.name != "token"] == ["state", "result"]
    assert rest[-2].data["status"] == "succeeded"
    assert rest[-1].data == httpx.Response(200, content=result).json()
    assert events.answer.headers["content-type"].startswith("text/event-stream")


async def test_client_that_was_cut_off_misses_and_repeats_no_token(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    command_id = await _ask(client)
    writer = streams.writer("gateway", UUID(command_id))
    writer.begin("a")
    words = [f"word-{number} " for number in range(60)]
    seen: list[Any] = []
    after: str | None = None
    for position, word in enumerate(words):
        writer.write(word)
        if position % 7 == 0:  # cut off here, and come again
            async with follow(client, command_id, after=after) as events:
                seen.append(await _token(events))
                after = seen[-1].id
    await writer.end()
    await finish(services, command_id, reply=False, output={"text": "".join(words)})

    async with follow(client, command_id, after=after) as events:
        rest = await events.rest()
    async with follow(client, command_id) as events:
        again = await events.rest()
    async with follow(client, command_id, after=rest[-1].id, status=204):
        pass

    assert text_of([*seen, *rest]) == "".join(words)
    assert "restart" not in {one.name for one in (*seen, *rest, *again)}
    assert text_of(again) == "".join(words)


async def test_answer_that_begins_anew_voids_what_was_told(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    command_id = await _ask(client)
    dead, alive = (streams.writer("gateway", UUID(command_id)) for _ in range(2))
    async with follow(client, command_id) as events:
        dead.begin("a")
        dead.write("The first wor")
        before = await _token(events)
        alive.begin("b")
        alive.write("Second ")
        [*_, restart] = await events.until("restart")
        dead.write("ker wakes up late")
        alive.write("try")
        await dead.end()
        await alive.end()
        await finish(services, command_id, reply=False, output={"text": "Second try"})
        rest = await events.rest()
    async with follow(client, command_id, after=before.id) as events:
        resumed = await events.rest()

    assert restart.data == {}
    assert text_of(rest) == "Second try"
    assert [one.name for one in rest].count("restart") == 0
    assert [one.name for one in resumed if one.name != "state"] == ["restart", "token", "result"]
    assert text_of([before, *resumed]) == "Second try"


async def test_tokens_that_redis_lost_come_with_the_result(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams, redis: Redis
) -> None:
    command_id = await _ask(client)
    key = stream_key("gateway", UUID(command_id))
    writer = streams.writer("gateway", UUID(command_id))
    async with follow(client, command_id) as events:
        writer.begin("a")
        writer.write("Hello, ")
        token = await _token(events)
        await redis.delete(key)
        await finish(services, command_id, reply=False, output={"text": "Hello, world"})
        [restart, _, result] = await events.rest()
    async with follow(client, command_id, after=token.id) as events:
        resumed = await events.rest()

    assert (restart.name, result.name) == ("restart", "result")
    assert result.data["output"]["text"] == "Hello, world"
    assert [one.name for one in resumed] == ["restart", "state", "result"]


async def test_place_that_was_trimmed_away_is_told_as_void_and_nothing_of_the_tail_is_told(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams, redis: Redis
) -> None:
    command_id = await _ask(client)
    key = stream_key("gateway", UUID(command_id))
    writer = streams.writer("gateway", UUID(command_id))
    writer.begin("a")
    writer.write("one ")
    async with follow(client, command_id) as events:
        token = await _token(events)
    writer.write("two ")
    await eventually(lambda: _longer(redis, key, 1))
    await redis.xtrim(key, maxlen=1, approximate=False)
    writer.write("three")
    await writer.end()
    await finish(services, command_id, reply=False, output={"text": "one two three"})

    async with follow(client, command_id, after=token.id) as events:
        resumed = await events.rest()

    names = [one.name for one in resumed if one.name != "state"]
    assert names == ["restart", "result"]


async def _longer(redis: Redis, key: str, length: int) -> bool:
    return int(await redis.xlen(key)) > length


async def test_command_without_a_stream_has_states_and_a_result(services: Session, client: httpx.AsyncClient) -> None:
    command = await post(client)
    async with follow(client, command["id"]) as events:
        queued = await events.next()
        await _move(services, command["id"], "retrying", 2)
        retrying = await events.next()
        await finish(services, command["id"], reply=True)
        rest = await events.rest()

    assert queued is not None
    assert retrying is not None
    assert (retrying.data["status"], retrying.data["attempt"]) == ("retrying", 2)
    assert [one.name for one in rest] == ["state", "result"]


async def test_cancelled_command_ends_its_stream(client: httpx.AsyncClient) -> None:
    command_id = await _ask(client)
    async with follow(client, command_id) as events:
        await events.next()
        await client.delete(f"/api/commands/{command_id}")
        rest = await events.rest()

    assert (rest[-1].name, rest[-1].data["status"]) == ("result", "cancelled")


async def test_foreign_or_unknown_command_is_404(
    services: Session, gateway: GatewayProcess, client: httpx.AsyncClient
) -> None:
    command_id = await _ask(client)
    async with gateway.client(await keys.create_key(services.postgres_url("ish_ops"), "stranger")) as stranger:
        foreign = await stranger.get(f"/api/commands/{command_id}/events")
    unknown = await client.get(f"/api/commands/{uuid4()}/events")

    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert foreign.headers["content-type"] == "application/problem+json"


async def test_many_followers_of_many_commands_each_get_their_own(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    ids = [await _ask(client) for _ in range(25)]
    following: list[str] = []

    async def read(command_id: str) -> str:
        async with follow(client, command_id) as events:
            await events.next()
            following.append(command_id)
            return text_of(await events.rest())

    async def all_follow() -> bool:
        return len(following) == 2 * len(ids)

    async def answer(command_id: str) -> None:
        writer = streams.writer("gateway", UUID(command_id))
        writer.begin("a")
        for number in range(40):
            writer.write(f"{command_id} {number}\n")
            await asyncio.sleep(0)
        await writer.end()
        await finish(services, command_id, reply=False, output={"text": _lines(command_id)})

    readers = [asyncio.ensure_future(read(command_id)) for command_id in ids * 2]
    await eventually(all_follow)  # who comes after the end is told the result alone
    for command_id in ids:
        await answer(command_id)

    assert await asyncio.gather(*readers) == [_lines(command_id) for command_id in ids * 2]


def _lines(command_id: str) -> str:
    return "".join(f"{command_id} {number}\n" for number in range(40))


async def test_slow_client_is_held_back_and_gets_everything(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    command_id = await _ask(client)
    writer = streams.writer("gateway", UUID(command_id))
    writer.begin("a")
    piece = "x" * 50_000
    async with follow(client, command_id) as events:
        await events.next()
        for _ in range(60):
            writer.write(piece)
            await asyncio.sleep(0.03)
        await writer.end()
        await finish(services, command_id, reply=False, output={"text": piece * 60})
        rest = await events.rest()

    assert text_of(rest) == piece * 60
    assert rest[-1].name == "result"


async def test_stopping_gateway_ends_the_stream_and_another_goes_on_from_there(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    command_id = await _ask(client)
    writer = streams.writer("gateway", UUID(command_id))
    writer.begin("a")
    writer.write("Hello, ")
    with gateway_process(services) as first:
        async with first.client(client.headers["X-API-Key"]) as other, follow(other, command_id) as events:
            token = await _token(events)
            stopped = asyncio.ensure_future(asyncio.to_thread(first.stop))
            left = await events.rest()
            code = await stopped
        log = first.log.read_text()
    writer.write("world")
    await writer.end()
    await finish(services, command_id, reply=False, output={"text": "Hello, world"})
    async with follow(client, command_id, after=token.id) as events:
        rest = await events.rest()

    assert (left, code) == ([], 0)
    assert "Traceback" not in log
    assert text_of([token, *rest]) == "Hello, world"


async def test_frozen_redis_and_postgres_do_not_end_a_stream(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    command_id = await _ask(client)
    writer = streams.writer("gateway", UUID(command_id))
    async with follow(client, command_id) as events:
        await events.next()
        reading = asyncio.ensure_future(events.rest())
        with frozen(services.redis), frozen(services.postgres):
            writer.begin("a")
            writer.write("dropped")
            await writer.end()

            async def kept_alive() -> bool:
                return events.comments > 0

            await eventually(kept_alive)
        await finish(services, command_id, reply=False, output={"text": "Hello"})
        rest = await reading

    assert [one.name for one in rest if one.name != "state"] == ["result"]
    assert rest[-1].data["output"]["text"] == "Hello"


async def test_stream_is_bounded_and_goes_away_by_itself(streams: TokenStreams, redis: Redis) -> None:
    command_id = uuid4()
    writer = streams.writer("gateway", command_id)
    writer.begin("a")
    writer.write("x")
    await writer.end()

    assert 0 < await redis.ttl(stream_key("gateway", command_id)) <= 900
    assert await redis.xlen(stream_key("gateway", command_id)) < MAX_ENTRIES


async def test_progress_is_asked_for_by_key_on_empty_tables_too(services: Session) -> None:
    async with database(services, "ish_gateway") as connection:
        for setting, value in SERVER_SETTINGS.items():
            await connection.execute("select set_config($1, $2, false)", setting, value)
        rows = await connection.fetch(f"explain {PROGRESS}", ["gateway"] * 50, [UUID(int=1)] * 50)

    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan, plan
    assert "Join Filter" not in plan, plan
    assert "_pkey" in plan, plan
