"""Answers to identical deterministic questions, kept in Redis for an hour; of equal questions at once only one is asked.

Redis never decides anything: without it every question is asked, and only equal ones within this process share a call.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import orjson
from pydantic import ValidationError
from redis.asyncio import Redis

from contracts.logs import get_logger
from contracts.redis_client import open_redis, patience
from contracts.restarting import restarting
from contracts.seal import Seal
from contracts.service_errors import redis_in_words
from workers.ai.answers.call_record import Answer
from workers.task_cancellation import end

_PATIENCE_SECONDS = 0.5
_CLAIM_SECONDS = 6.0
_RENEW_SECONDS = 2.0
_POLL_SECONDS = 0.1
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"

Make = Callable[[], Awaitable[Answer]]


def cache_key(owner: str, **question: Any) -> str:
    """What makes two questions of an owner identical.

    Args:
        owner: Answers are never shared between owners.
        question: Everything that the answer depends on, JSON-ready.
    """
    return hashlib.sha256(orjson.dumps([owner, question], option=orjson.OPT_SORT_KEYS)).hexdigest()


class AnswerCache:
    """Answers by key.

    Args:
        redis: None for none.
        keep_seconds: How long an answer is kept; 0 for not at all.
        seal: Tells what a worker has written from what somebody has planted.
    """

    def __init__(self, redis: "Redis | None", *, keep_seconds: int, seal: Seal) -> None:
        self._seal = seal
        self._redis = redis if keep_seconds else None
        self._keep_seconds = keep_seconds
        self._making: dict[str, asyncio.Future[Answer]] = {}
        self._claims: dict[str, str] = {}
        self._told = False

    async def answer(self, key: str, make: Make) -> Answer:
        """The answer to a question: kept, or being made by somebody else right now, or made here.

        Args:
            key: From `cache_key`.
            make: Asks; its error is this caller's alone, whoever waits for the same answer asks for itself.
        """
        while (making := self._making.get(key)) is not None:
            with suppress(Exception):  # the maker's error is told to the maker
                return (await asyncio.shield(making)).model_copy(update={"cached": True})
            await asyncio.sleep(0)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._making[key] = future
        try:
            found = await self._shared(key, make)
        except BaseException as error:
            future.set_exception(RuntimeError(f"not made: {type(error).__name__}"))
            future.exception()  # nobody need be waiting
            raise
        else:
            future.set_result(found)
            return found
        finally:
            del self._making[key]

    async def _shared(self, key: str, make: Make) -> Answer:
        kept, claim = await self._find_or_claim(key)
        if kept is not None:
            return kept
        if claim is None:
            return await make()
        async with self._claimed(key, claim):
            answer = await make()
            await self._keep(key, answer)
            return answer

    async def _find_or_claim(self, key: str) -> tuple[Answer | None, str | None]:
        """A kept answer; or the right to make it, unless Redis is away; waits while another worker makes it."""
        if self._redis is None:
            return None, None
        claim = uuid4().hex
        while True:
            try:
                async with patience(_PATIENCE_SECONDS):
                    kept = await self._redis.get(_answer(key))
                    if kept is None and await self._redis.set(_claim(key), claim, nx=True, px=_ms(_CLAIM_SECONDS)):
                        return None, claim
            except Exception as error:  # noqa: BLE001  # whatever Redis's client raises, it is done without
                self._tell(error)
                return None, None
            self._told = False
            if kept is not None:
                content = self._seal.open(_answer(key), kept) if isinstance(kept, bytes) else None
                with suppress(ValidationError):  # planted, or of another version: made anew, and overwritten
                    return Answer.model_validate_json(content or b"").model_copy(update={"cached": True}), None
                return None, None
            await asyncio.sleep(_POLL_SECONDS)

    @asynccontextmanager
    async def _claimed(self, key: str, claim: str) -> AsyncIterator[None]:
        self._claims[key] = claim
        try:
            yield
        finally:
            del self._claims[key]
            if self._redis is not None:
                with suppress(Exception):
                    async with patience(_PATIENCE_SECONDS):
                        await self._redis.eval(_RELEASE, 1, _claim(key), claim)

    async def run(self) -> None:
        """Keep what this process is making its own, until cancelled."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            if self._redis is None or not self._claims:
                continue
            with suppress(Exception):
                async with patience(_PATIENCE_SECONDS), self._redis.pipeline(transaction=False) as pipeline:
                    for key in self._claims:
                        pipeline.pexpire(_claim(key), _ms(_CLAIM_SECONDS))
                    await pipeline.execute()

    async def _keep(self, key: str, answer: Answer) -> None:
        if self._redis is None:
            return
        content = answer.model_dump_json().encode()
        sealed = self._seal.close(_answer(key), content, keep_seconds=self._keep_seconds)
        try:
            async with patience(_PATIENCE_SECONDS):
                await self._redis.set(_answer(key), sealed, ex=self._keep_seconds)
        except Exception as error:  # noqa: BLE001  # whatever Redis's client raises, it is done without
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            get_logger().warning("redis_unreachable", error=redis_in_words(error), doing="answer cache")


@asynccontextmanager
async def open_cache(redis_url: str, *, keep_seconds: int, seal: Seal | None = None) -> AsyncIterator[AnswerCache]:
    """An answer cache, closed on leaving.

    Args:
        redis_url: redis:// URL; empty for none.
        keep_seconds: How long an answer is kept.
        seal: What only workers have; None takes the address of Redis itself.
    """
    seal = seal or Seal.of(redis_url)
    if not redis_url:
        yield AnswerCache(None, keep_seconds=keep_seconds, seal=seal)
        return
    redis = open_redis(redis_url)
    cache = AnswerCache(redis, keep_seconds=keep_seconds, seal=seal)
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(restarting("answer cache", cache.run))
            try:
                yield cache
            finally:
                await end([task])
    finally:
        with suppress(Exception):
            await redis.aclose()


def _answer(key: str) -> str:
    return f"ish:answer:{key}"


def _claim(key: str) -> str:
    return f"ish:answer:{key}:making"


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
