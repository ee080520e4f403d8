"""Equal questions are asked once: in one process, over several, with and without Redis."""

import asyncio

import pytest
import redis.asyncio

from ops.stack.session import Session
from workers.ai.answers.cache import cache_key, open_cache
from workers.ai.answers.call_record import Answer

ANSWER = Answer(text="42", finish_reason="stop", provider="scripted", model="steady", tokens_in=3, tokens_out=1)


class Maker:
    """Counts how often it is asked; answers when it is let."""

    def __init__(self, *, fails: int = 0) -> None:
        self.asked = 0
        self.fails = fails
        self.may = asyncio.Event()

    async def __call__(self) -> Answer:
        self.asked += 1
        await self.may.wait()
        if self.asked <= self.fails:
            raise ConnectionError("the provider failed")
        return ANSWER


async def test_equal_questions_at_once_cost_one_call_over_two_processes(services: Session) -> None:
    key, make = cache_key("demo", prompt="at once"), Maker()
    async with (
        open_cache(services.redis_url, keep_seconds=60) as one,
        open_cache(services.redis_url, keep_seconds=60) as two,
    ):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cache.answer(key, make)) for cache in (one, two) for _ in range(5)]
            while not make.asked:  # noqa: ASYNC110  # a counter
                await asyncio.sleep(0.01)
            make.may.set()

        again = await two.answer(key, make)

    assert make.asked == 1
    assert sorted(task.result().cached for task in tasks) == [False] + [True] * 9
    assert {task.result().text for task in tasks} == {"42"}
    assert again == ANSWER.model_copy(update={"cached": True})


async def test_another_owner_or_another_question_is_another_call(services: Session) -> None:
    make = Maker()
    make.may.set()
    async with open_cache(services.redis_url, keep_seconds=60) as cache:
        for owner, prompt in (("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")):
            await cache.answer(cache_key(owner, prompt=prompt, run="owners"), make)

    assert make.asked == 3


async def test_a_failure_is_the_askers_alone_and_the_next_one_asks_again(services: Session) -> None:
    key, make = cache_key("demo", prompt="fails"), Maker(fails=1)
    make.may.set()
    async with open_cache(services.redis_url, keep_seconds=60) as cache:
        results = await asyncio.gather(*(cache.answer(key, make) for _ in range(3)), return_exceptions=True)

    assert [type(one) for one in results].count(ConnectionError) == 1
    assert make.asked == 2


async def test_the_right_to_ask_of_a_process_that_died_passes_on(services: Session) -> None:
    key, make = cache_key("demo", prompt="died"), Maker()
    make.may.set()
    async with redis.asyncio.from_url(services.redis_url) as connection:
        await connection.set(f"ish:answer:{key}:making", "somebody who is gone", px=300)
    async with open_cache(services.redis_url, keep_seconds=60) as cache, asyncio.timeout(30):
        answer = await cache.answer(key, make)

    assert (answer.cached, make.asked) == (False, 1)


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:1/0"], ids=["none", "unreachable"])
async def test_without_redis_every_question_is_asked_and_equal_ones_at_once_share(url: str) -> None:
    key, make = cache_key("demo", prompt="alone"), Maker()
    async with open_cache(url, keep_seconds=60) as cache:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(cache.answer(key, make)) for _ in range(3)]
            while not make.asked:  # noqa: ASYNC110  # a counter
                await asyncio.sleep(0.01)
            make.may.set()
        assert make.asked == 1
        await cache.answer(key, make)

    assert make.asked == 2
    assert {task.result().text for task in tasks} == {"42"}
