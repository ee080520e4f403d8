"""Finished commands in Redis, so that they can be read while PostgreSQL is away. Redis never decides anything.

An error leaves Redis alone for a second: a request that could do without it must not wait for it.
"""

import asyncio
import time
from contextlib import suppress
from uuid import UUID

from redis.asyncio import Redis

from contracts.logs import get_logger
from contracts.redis_client import open_redis
from contracts.seal import Seal
from contracts.service_errors import redis_in_words

_TIMEOUT_SECONDS = 0.2
_PAUSE_SECONDS = 1.0
_CONNECTIONS = 20
_MAX_BYTES = 1024 * 1024


class ResultCache:
    """Views of finished commands by owner and id.

    Args:
        url: redis:// URL; empty for none.
        keep_seconds: How long a view is kept; 0 for not at all.
        seal: Tells what a gateway has written from what somebody has planted.
    """

    def __init__(self, url: str, *, keep_seconds: int, seal: Seal) -> None:
        self._seal = seal
        self._keep_seconds = keep_seconds
        self._away_until = 0.0
        self._reachable = True
        self._redis: Redis | None = None
        if url:
            self._redis = open_redis(url, max_connections=_CONNECTIONS)

    async def get(self, owner: str, command_id: UUID) -> bytes | None:
        """A finished command's view, or None.

        Args:
            owner: Who asks.
            command_id: The command.
        """
        if self._redis is None or time.monotonic() < self._away_until:
            return None
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                view = await self._redis.get(_key(owner, command_id))
        except Exception as error:  # noqa: BLE001  # whatever Redis's client raises, it is done without
            self._pause(error)
            return None
        self._note(None)
        return self._seal.open(_key(owner, command_id), view) if isinstance(view, bytes) else None

    async def put(self, owner: str, command_id: UUID, view: bytes) -> None:
        """Keep a finished command's view.

        Args:
            owner: The command's owner.
            command_id: The command.
            view: What a read of it answers; a large one is not kept.
        """
        if self._redis is None or not self._keep_seconds or len(view) > _MAX_BYTES:
            return
        if time.monotonic() < self._away_until:
            return
        key = _key(owner, command_id)
        sealed = self._seal.close(key, view, keep_seconds=self._keep_seconds)
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await self._redis.set(key, sealed, ex=self._keep_seconds)
        except Exception as error:  # noqa: BLE001  # whatever Redis's client raises, it is done without
            self._pause(error)

    async def answers(self) -> bool | None:
        """Whether Redis answers now; None when there is none."""
        if self._redis is None:
            return None
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await self._redis.ping()
        except Exception as error:  # noqa: BLE001  # whatever Redis's client raises, it is done without
            self._pause(error)
            return False
        self._note(None)
        return True

    async def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            with suppress(Exception):
                await self._redis.aclose()

    def _pause(self, error: Exception) -> None:
        self._away_until = time.monotonic() + _PAUSE_SECONDS
        self._note(error)

    def _note(self, error: Exception | None) -> None:
        """One line when it goes, one when it is back."""
        if (error is None) is self._reachable:
            return
        self._reachable = error is None
        if error is None:
            get_logger().info("redis_reachable")
        else:
            get_logger().warning("redis_unreachable", error=redis_in_words(error))


def _key(owner: str, command_id: UUID) -> str:
    return f"ish:result:{owner}:{command_id}"
