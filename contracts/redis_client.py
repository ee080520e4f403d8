"""How every process talks to Redis: within a time of its own, and never twice by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from contracts.service_errors import note_place

_HUNG_SECONDS = 5.0
_TURNS = 20


def open_redis(url: str, *, max_connections: int | None = None) -> Redis:
    """A client that is not connected yet; close it with `aclose`, or use it as a context manager.

    redis-py's own retries are off: what Redis is used for here is worth one short wait (`patience`), and then done without.

    Args:
        url: redis:// URL.
        max_connections: At the most; None for as many as there are commands at once.
    """
    note_place("Redis", url)
    return Redis.from_url(
        url,
        socket_timeout=_HUNG_SECONDS,
        socket_connect_timeout=_HUNG_SECONDS,
        retry=Retry(NoBackoff(), 0),
        max_connections=max_connections,
    )


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """A time-out that hardly counts the time in which this process was not scheduled: it counts turns of the loop.

    On a busy machine Redis would be taken for away, and what it is good for be lost: limits that all workers share,
    answers that were paid for.

    Args:
        seconds: To wait, on a machine that has time.

    Raises:
        TimeoutError: They are over.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as window:
        timers: list[asyncio.TimerHandle] = []

        def turn(left: int) -> None:
            if left > 0:
                timers[:] = [loop.call_later(seconds / _TURNS, turn, left - 1)]
            elif not window.expired():
                window.reschedule(loop.time())

        turn(_TURNS)
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()
