"""Keeps each answer in Redis from the end of its call until it is on record, so that a crash in between costs nothing.

A worker that dies after a call and before its commit leaves a command that another takes over. That one finds the answer
here, with what it took: no provider is asked, or paid, a second time, and the ledger tells of the call. Without Redis, or
when it does not answer, the call is made again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from contracts.ai import AiSend
from contracts.logs import get_logger
from workers.ai.answer import Answer, Asked
from workers.handler import Command

_KEEP_SECONDS = 300
"""Far longer than it takes to notice a death and take over; what is on record by then is simply forgotten."""
_TIMEOUT_SECONDS = 0.5
_PAUSE_SECONDS = 2.0
_AWAY = (RedisError, OSError, TimeoutError)


class KeptAnswers:
    """Answers by command.

    Args:
        redis: None for none.
    """

    def __init__(self, redis: Redis | None) -> None:
        self._redis = redis
        self._away_until = 0.0

    async def keep(self, command: Command[AiSend], asked: Asked) -> None:
        """Keep an answer that a call has brought; never fails.

        Args:
            command: What was asked.
            asked: The answer and what it took.
        """
        document = orjson.dumps(asked, default=_as_json)
        await self._do("set", _key(command), document, ex=_KEEP_SECONDS)

    async def find(self, command: Command[AiSend]) -> Asked | None:
        """The answer that an earlier run of a command got and could not record; None when there is none.

        Args:
            command: What is asked; its first run has none before it.
        """
        if command.attempt == 1:
            return None
        kept = await self._do("get", _key(command))
        if kept is None:
            return None
        try:
            document = orjson.loads(kept)
            return Asked(**document | {"answer": Answer.model_validate(document["answer"])})
        except (orjson.JSONDecodeError, ValidationError, TypeError, KeyError):
            return None  # of another version

    async def _do(self, verb: str, *arguments: Any, **options: Any) -> Any:
        now = asyncio.get_running_loop().time()
        if self._redis is None or now < self._away_until:
            return None
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                return await getattr(self._redis, verb)(*arguments, **options)
        except _AWAY as error:
            # one wait for all that end now, not one for each
            self._away_until = now + _PAUSE_SECONDS
            get_logger().warning("redis_unreachable", error=repr(error), doing="kept answers")
            return None


@asynccontextmanager
async def open_kept_answers(redis_url: str) -> AsyncIterator[KeptAnswers]:
    """Kept answers, closed on leaving.

    Args:
        redis_url: redis:// URL; empty for none.
    """
    if not redis_url:
        yield KeptAnswers(None)
        return
    async with Redis.from_url(
        redis_url,
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    ) as redis:
        yield KeptAnswers(redis)


def _as_json(answer: Answer) -> dict[str, Any]:
    return answer.model_dump(mode="json")


def _key(command: Command[AiSend]) -> str:
    # two publishers may use the same id
    return f"ish:unrecorded:{quote(command.publisher, safe='')}:{command.id}"
