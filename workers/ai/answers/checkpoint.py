"""Keeps each answer in Redis from the end of its call until it is on record, so that a crash in between costs nothing.

A worker that dies after a call and before its commit leaves a command that another takes over. That one finds the answer
here, with what it took: no provider is asked, or paid, a second time, and the ledger tells of the call. Without Redis, or
when it does not answer, the call is made again.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import ValidationError
from redis.asyncio import Redis

from contracts.ai.chat import AiSend
from contracts.logs import get_logger
from contracts.redis_client import open_redis, patience
from contracts.restarting import restarting
from contracts.seal import Seal
from contracts.service_errors import redis_in_words
from workers.ai.answers.call_record import Answer, Asked
from workers.handler import Command
from workers.task_cancellation import end

_KEEP_SECONDS = 300
"""Far longer than it takes to notice a death and take over; what is on record by then is simply forgotten."""
_PATIENCE_SECONDS = 1.0
_PAUSE_SECONDS = 2.0


class KeptAnswers:
    """Answers by command; what many runs ask of Redis at once travels in one pipeline.

    Args:
        redis: None for none.
        seal: Tells what a worker has written from what somebody has planted.
    """

    def __init__(self, redis: Redis | None, *, seal: Seal) -> None:
        self._seal = seal
        self._redis = redis
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._any = asyncio.Event()
        self._away_until = 0.0

    async def keep(self, command: Command[AiSend], asked: Asked) -> None:
        """Keep an answer that a call has brought; never fails.

        Args:
            command: What was asked.
            asked: The answer and what it took.
        """
        key = _key(command)
        sealed = self._seal.close(key, orjson.dumps(asked, default=_as_json), keep_seconds=_KEEP_SECONDS)
        await self._do("SET", key, sealed, "EX", _KEEP_SECONDS)

    async def find(self, command: Command[AiSend]) -> Asked | None:
        """The answer that an earlier run of a command got and could not record; None when there is none.

        Args:
            command: What is asked; its first run has none before it.
        """
        if command.attempt == 1:
            return None
        kept = await self._do("GET", _key(command))
        content = self._seal.open(_key(command), kept) if isinstance(kept, bytes) else None
        if content is None:
            return None
        try:
            document = orjson.loads(content)
            return Asked(**document | {"answer": Answer.model_validate(document["answer"])})
        except (orjson.JSONDecodeError, ValidationError, TypeError, KeyError):
            return None  # of another version

    async def run(self) -> None:
        """Talk to Redis until cancelled."""
        while True:
            await self._any.wait()
            self._any.clear()
            batch, self._waiting = self._waiting, []
            answers: Sequence[Any] = [None] * len(batch)
            try:
                answers = await self._send([words for words, _ in batch])
            finally:  # whoever asked waits for this alone
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)

    async def _do(self, *words: Any) -> Any:
        """One command's answer; None when Redis does not give one."""
        loop = asyncio.get_running_loop()
        if self._redis is None or loop.time() < self._away_until:
            return None
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((words, future))
        self._any.set()
        return await future

    async def _send(self, commands: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        redis = self._redis
        if redis is not None:
            try:
                pipeline = redis.pipeline(transaction=False)
                for words in commands:
                    pipeline.execute_command(*words)
                async with patience(_PATIENCE_SECONDS):
                    answers = await pipeline.execute(raise_on_error=False)
                return [None if isinstance(answer, Exception) else answer for answer in answers]
            except Exception as error:  # noqa: BLE001  # whatever Redis's client raises, it is done without
                # one wait for all that end now, not one for each
                self._away_until = asyncio.get_running_loop().time() + _PAUSE_SECONDS
                get_logger().warning("redis_unreachable", error=redis_in_words(error), doing="kept answers")
        return [None] * len(commands)


@asynccontextmanager
async def open_kept_answers(redis_url: str, *, seal: Seal | None = None) -> AsyncIterator[KeptAnswers]:
    """Kept answers, closed on leaving.

    Args:
        redis_url: redis:// URL; empty for none.
        seal: What only workers have; None takes the address of Redis itself.
    """
    seal = seal or Seal.of(redis_url)
    if not redis_url:
        yield KeptAnswers(None, seal=seal)
        return
    async with (
        open_redis(redis_url, max_connections=1) as redis,
        asyncio.TaskGroup() as group,
    ):
        kept = KeptAnswers(redis, seal=seal)
        talking = group.create_task(restarting("kept answers", kept.run))
        try:
            yield kept
        finally:
            await end([talking])


def _as_json(answer: Answer) -> dict[str, Any]:
    return answer.model_dump(mode="json")


def _key(command: Command[AiSend]) -> str:
    # two publishers may use the same id
    return f"ish:unrecorded:{quote(command.publisher, safe='')}:{command.id}"
