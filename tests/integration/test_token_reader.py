"""The gateway's side of token streams: whoever follows one gets all of it, whenever they came."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
import redis

from contracts.tokens import RUN, TEXT, stream_key
from gateway.services.token_reader import Follower, TokenReader
from ops.stack.session import Session
from tests.integration.gateway_process import DEADLINE_SECONDS
from workers.task_cancellation import end


@pytest.fixture
async def reader(services: Session) -> AsyncIterator[TokenReader]:
    one = TokenReader(services.addresses.redis_by_role["gateway"])
    running = asyncio.create_task(one.run())
    yield one
    await end([running])
    await one.close()


@pytest.fixture
def blocking(services: Session) -> Iterator["redis.Redis"]:
    """What is written by it is in Redis before anything else happens in this process."""
    with redis.Redis.from_url(services.redis_url) as one:
        yield one


async def text_of(reader: TokenReader, follower: Follower, wake: asyncio.Event, *, entries: int) -> str:
    texts: list[str] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(texts) < entries:
            await wake.wait()
            wake.clear()
            texts += [entry.text for entry in reader.take(follower)]
    return "".join(texts)


async def test_who_comes_while_a_read_for_others_is_under_way_gets_the_beginning_too(
    reader: TokenReader, blocking: "redis.Redis"
) -> None:
    command_id, first_wake, second_wake = uuid4(), asyncio.Event(), asyncio.Event()
    key = stream_key("demo", command_id)
    with reader.follow("demo", command_id, first_wake) as first:
        blocking.xadd(key, {RUN: "1", TEXT: "one "})
        assert await text_of(reader, first, first_wake, entries=1) == "one "
        await asyncio.sleep(0.2)  # the next read, for what comes after that, has begun

        with reader.follow("demo", command_id, second_wake) as second:
            blocking.xadd(key, {RUN: "1", TEXT: "two "})  # ends that read, before it can be told of the second

            assert await text_of(reader, second, second_wake, entries=2) == "one two "
            assert await text_of(reader, first, first_wake, entries=1) == "two "
