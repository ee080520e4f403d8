"""One connection to Redis for every script of a process: what is asked in the same moment goes out in one round trip.

A request is sent once it is handed over, even if whoever asked is cancelled meanwhile; a reply that nobody waits for any
more goes to `orphan`, so that a granted pass never gets lost.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from contracts.redis_client import open_redis, patience

ROOT = "{ish:ai}"
"""Before every key; the braces keep all of them on one node of a Redis Cluster."""

_CONNECT_SECONDS = 0.5
_PATIENCE_SECONDS = 1.0
"""How long Redis has to answer: every worker for itself means limits exceeded."""
_BATCH = 200
_LISTEN_AGAIN_SECONDS = 1.0
_FOLDER = Path(__file__).parent


class Unreachable(Exception):
    """Redis did not answer in time, or answered with an error."""


class Script:
    """A script beside this module, after what all of them share.

    Args:
        name: Its file's name.
    """

    def __init__(self, name: str) -> None:
        self.source = "\n".join((_FOLDER / part).read_text(encoding="utf-8") for part in ("scope.lua", name))
        self.digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True)
class _Request:
    script: Script
    argument: bytes
    reply: asyncio.Future[Any]
    orphan: Callable[[Any], None] | None


class Link:
    """Runs scripts.

    Args:
        url: redis:// URL.
    """

    def __init__(self, url: str) -> None:
        self._redis = open_redis(url, max_connections=1)
        self._requests: list[_Request] = []
        self._closed = False
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def ask(
        self, script: Script, argument: Mapping[str, Any], *, orphan: Callable[[Any], None] | None = None
    ) -> asyncio.Future[Any]:
        """Hand a request over.

        Args:
            script: What to run.
            argument: Its ARGV[1], to be written as JSON.
            orphan: Called with the reply when the future was cancelled before it came.

        Returns:
            The reply to come; it raises Unreachable.
        """
        reply = asyncio.get_running_loop().create_future()
        request = _Request(script, orjson.dumps(argument), reply, orphan)
        if self._closed:
            _settle(request, Unreachable("the connection is closed"))
            return reply
        self._requests.append(request)
        self._idle.clear()
        self._some.set()
        return reply

    async def run(self) -> None:
        """Send what is handed over, until cancelled."""
        while True:
            await self._some.wait()
            while self._requests:
                batch, self._requests = self._requests[:_BATCH], self._requests[_BATCH:]
                await self._send(batch)
            self._some.clear()
            self._idle.set()

    async def drain(self) -> None:
        """Wait until everything handed over was sent and answered, or given up."""
        await self._idle.wait()

    async def close(self) -> None:
        """Close the connection, once `run` has ended; what was not sent fails, as does what comes later."""
        self._closed = True
        for request in self._requests:
            _settle(request, Unreachable("the connection is closed"))
        self._requests.clear()
        with suppress(Exception):
            await self._redis.aclose()

    async def _send(self, batch: Sequence[_Request]) -> None:
        try:
            async with patience(_PATIENCE_SECONDS):
                replies = await self._evaluate(batch)
                forgotten = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                if forgotten:
                    for source in {batch[place].script.source for place in forgotten}:
                        await self._redis.script_load(source)
                    again = await self._evaluate([batch[place] for place in forgotten])
                    for place, reply in zip(forgotten, again, strict=True):
                        replies[place] = reply
        except Exception as error:  # noqa: BLE001  # whatever Redis's client raises, this process goes on alone
            replies = [error] * len(batch)
        except asyncio.CancelledError:
            for request in batch:
                _settle(request, Unreachable("the process stops"))
            raise
        for request, reply in zip(batch, replies, strict=True):
            _settle(request, reply)

    async def _evaluate(self, batch: Sequence[_Request]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for request in batch:
                pipeline.evalsha(request.script.digest, 1, ROOT, request.argument)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies


def _settle(request: _Request, reply: Any) -> None:
    if request.reply.cancelled():
        if request.orphan is not None and not isinstance(reply, Exception):
            request.orphan(reply)
    elif isinstance(reply, Exception):
        unreachable = reply if isinstance(reply, Unreachable) else Unreachable(repr(reply))
        unreachable.__cause__ = None if unreachable is reply else reply
        request.reply.set_exception(unreachable)
    else:
        request.reply.set_result(reply)


async def listen(url: str, freed: Callable[[set[str] | None], None]) -> None:
    """Tell which scopes other workers' calls have left, until cancelled; what is missed is found by asking again.

    Args:
        url: redis:// URL.
        freed: Called with the scopes; with None after an interruption: it may be any.
    """
    async with Redis.from_url(
        url, socket_connect_timeout=_CONNECT_SECONDS, socket_keepalive=True, retry=Retry(NoBackoff(), 0)
    ) as redis:
        while True:
            with suppress(
                RedisError, OSError
            ):  # away, as those who ask have said; anything else is told, and starts over
                async with redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(f"{ROOT}:freed")
                    freed(None)
                    async for message in subscription.listen():
                        freed(set(message["data"].decode().split("\n")))
            await asyncio.sleep(_LISTEN_AGAIN_SECONDS)
