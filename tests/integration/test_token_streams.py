"""The worker's side of token streams: what is written, what is dropped, and that nobody waits for Redis."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from contracts.tokens import stream_key
from ops.stack.session import Session
from tests.integration.gateway_process import DEADLINE_SECONDS, eventually, frozen
from workers.ai.answers.streaming import TokenStreams, open_token_streams


@pytest.fixture
async def redis(services: Session) -> AsyncIterator[Redis]:
    async with Redis.from_url(services.redis_url, decode_responses=True) as one:
        yield one


async def _entries(redis: Redis, command_id: UUID) -> list[dict[str, str]]:
    entries: Any = await redis.xrange(stream_key("demo", command_id))
    return [fields for _, fields in entries]


async def test_text_of_a_moment_is_one_entry_and_the_end_is_the_last(streams: TokenStreams, redis: Redis) -> None:
    command_id = uuid4()
    writer = streams.writer("demo", command_id)

    writer.begin("1")
    for piece in ("Grü", "ße", "\x00", ""):
        writer.write(piece)
    await writer.end()

    [entry] = await _entries(redis, command_id)
    assert (entry["text"], entry["end"]) == ("Grüße\N{REPLACEMENT CHARACTER}", "1")
    assert entry["run"].endswith(".1")


async def test_two_writers_of_one_command_never_have_a_run_in_common(streams: TokenStreams, redis: Redis) -> None:
    command_id = uuid4()
    for writer in (streams.writer("demo", command_id), streams.writer("demo", command_id)):
        writer.begin("1")
        writer.write("x")
        await writer.end()

    assert len({entry["run"] for entry in await _entries(redis, command_id)}) == 2


async def test_run_that_is_given_up_leaves_nothing_unwritten_behind(streams: TokenStreams, redis: Redis) -> None:
    command_id = uuid4()
    writer = streams.writer("demo", command_id)

    writer.begin("1")
    writer.write("void")
    writer.begin("2")
    writer.write("good")
    await writer.end()
    writer.begin("3")
    writer.write("void")
    await writer.close()
    other = streams.writer("demo", uuid4())
    other.begin("1")
    await other.end()

    assert [entry["text"] for entry in await _entries(redis, command_id)] == ["good"]


async def test_hundreds_of_answers_at_once_are_all_written(streams: TokenStreams, redis: Redis) -> None:
    ids = [uuid4() for _ in range(300)]

    async def answer(command_id: UUID) -> None:
        writer = streams.writer("demo", command_id)
        writer.begin("1")
        for number in range(20):
            writer.write(f"{number} ")
            await asyncio.sleep(0.005)
        await writer.end()

    await asyncio.gather(*(answer(command_id) for command_id in ids))

    whole = "".join(f"{number} " for number in range(20))
    for command_id in ids:
        # the end is an entry of its own when the text before it has just been written
        assert "".join(entry.get("text", "") for entry in await _entries(redis, command_id)) == whole


async def test_redis_that_does_not_answer_holds_nobody_and_leaves_no_hole(
    services: Session, streams: TokenStreams, redis: Redis
) -> None:
    command_id, next_id = uuid4(), uuid4()
    writer = streams.writer("demo", command_id)
    writer.begin("1")
    writer.write("one ")

    async def there() -> bool:
        return bool(await _entries(redis, command_id))

    await eventually(there)
    with capture_logs() as logs:
        with frozen(services.redis):
            writer.write("two ")
            async with asyncio.timeout(DEADLINE_SECONDS):
                await writer.end()
            for _ in range(100):
                other = streams.writer("demo", uuid4())
                other.begin("1")
                other.write("dropped")
                await other.end()
        writer.write("three")

        async def written_again() -> bool:
            again = streams.writer("demo", next_id)
            again.begin("1")
            again.write("back")
            await again.end()
            return bool(await _entries(redis, next_id))

        await eventually(written_again)

    # what had left before the freeze may still arrive; nothing is ever written behind something lost
    assert "".join(entry["text"] for entry in await _entries(redis, command_id)) in {"one ", "one two "}
    assert [line["event"] for line in logs] == ["redis_unreachable", "redis_reachable"]


async def test_more_text_than_may_wait_is_dropped(services: Session, streams: TokenStreams, redis: Redis) -> None:
    command_id = uuid4()
    writer = streams.writer("demo", command_id)
    with frozen(services.redis):
        writer.begin("1")
        for _ in range(200):
            writer.write("x" * 10_000)
        await writer.end()

    assert await _entries(redis, command_id) == []


async def test_without_redis_everything_is_dropped() -> None:
    async with open_token_streams("") as streams:
        writer = streams.writer("demo", uuid4())
        writer.begin("1")
        writer.write("x")
        await writer.end()
        await writer.close()


async def test_end_that_comes_after_closing_waits_for_nobody(services: Session) -> None:
    async with open_token_streams(services.addresses.redis_by_role["worker"]) as streams:
        writer = streams.writer("demo", uuid4())
        writer.begin("1")

    writer.write("x")
    async with asyncio.timeout(DEADLINE_SECONDS):
        await writer.end()
