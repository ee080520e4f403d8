"""How every process talks to Redis: within a time of its own, and never twice by itself."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def open_redis(url: str, *, timeout_seconds: float, max_connections: int | None = None) -> Redis:
    """A client that is not connected yet; close it with `aclose`, or use it as a context manager.

    redis-py's own retries are off: what Redis is used for here is worth one short wait, and then done without.

    Args:
        url: redis:// URL.
        timeout_seconds: To connect, and for each answer.
        max_connections: At the most; None for as many as there are commands at once.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        max_connections=max_connections,
    )
