"""Reads the token streams that clients of this gateway follow: one blocking read for all of them.

Nobody depends on it: without Redis a client gets the whole text with the result. A reader that blocks for streams cannot
be told of one more, so it also reads a stream of its own, where an entry wakes it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from contracts.logs import get_logger
from contracts.service_errors import note_place, redis_in_words
from contracts.tokens import RUN, TEXT, stream_key
from gateway.services.transcript import START, Entry, EntryId

_BLOCK_SECONDS = 5.0
_TIMEOUT_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_GATHER_SECONDS = 0.01
_GATHER_FOLLOWERS = 100
"""With more followers than this the reads become rarer, so that their cost stays the same."""
_COUNT = 1000
_CONNECTIONS = 4
_MAX_HELD_CHARACTERS = 256 * 1024
"""What is kept for a client that reads slowly; the rest stays in Redis until it has taken that."""
_WAKE_KEEP_SECONDS = 60


class Follower:
    """One client's place in a stream.

    Args:
        key: The stream.
        wake: Set when there is something to take.
    """

    def __init__(self, key: str, wake: asyncio.Event) -> None:
        self.key = key
        self.position = START
        self.held_characters = 0
        self._wake = wake
        self._entries: list[Entry] = []

    @property
    def hungry(self) -> bool:
        """Whether it is worth reading more for it."""
        return self.held_characters < _MAX_HELD_CHARACTERS

    def give(self, entries: list[Entry]) -> None:
        """Hold entries until they are taken; those that it has had are left out.

        Args:
            entries: In order.
        """
        fresh = [entry for entry in entries if entry.id > self.position]
        if fresh:
            self.position = fresh[-1].id
            self.held_characters += sum(len(entry.text) for entry in fresh)
            self._entries += fresh
            self._wake.set()

    def take(self) -> list[Entry]:
        """What has come since it was last asked."""
        entries, self._entries = self._entries, []
        self.held_characters = 0
        return entries


class TokenReader:
    """All followers of this gateway.

    Args:
        url: redis:// URL; empty for none.
    """

    def __init__(self, url: str) -> None:
        self._followers: dict[str, list[Follower]] = {}
        self._any = asyncio.Event()
        self._changed = asyncio.Event()
        self._wake_key = f"ish:tokens:wake:{uuid4().hex}"
        self._woken = START
        self._reachable = True
        self._blocking: Redis | None = None
        self._redis: Redis | None = None
        if url:
            note_place("Redis", url)
            self._blocking = Redis.from_url(
                url,
                socket_timeout=2 * _BLOCK_SECONDS,
                socket_connect_timeout=_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
                max_connections=1,
            )
            pool: Any = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=_TIMEOUT_SECONDS,
                socket_timeout=_TIMEOUT_SECONDS,
                socket_connect_timeout=_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
            self._redis = Redis.from_pool(pool)

    @contextmanager
    def follow(
        self, publisher: str, command_id: UUID, wake: asyncio.Event, *, wanted: bool = True
    ) -> Iterator[Follower]:
        """Follow a command's stream from its beginning while the block runs.

        Args:
            publisher: The command's publisher.
            command_id: The command.
            wake: Set when there is something to take.
            wanted: Whether the command may have a stream at all; nothing ever comes of one that has not.
        """
        follower = Follower(stream_key(publisher, command_id), wake)
        if not wanted:
            yield follower
            return
        self._followers.setdefault(follower.key, []).append(follower)
        self._any.set()
        self._changed.set()
        try:
            yield follower
        finally:
            left = self._followers[follower.key]
            left.remove(follower)
            if not left:
                del self._followers[follower.key]

    def take(self, follower: Follower) -> list[Entry]:
        """What has come for a follower since it was last asked.

        Args:
            follower: From `follow`.
        """
        if not follower.hungry:
            self._changed.set()
        return follower.take()

    async def take_rest(self, follower: Follower) -> list[Entry]:
        """Everything that the stream holds beyond what was taken; for when its command has finished.

        Args:
            follower: From `follow`.

        Returns:
            What could be had: without Redis less than was written.
        """
        redis = self._redis
        if redis is None or follower.key not in self._followers:
            return []
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                while True:
                    found = await _read(redis, {follower.key: follower.position}, block_seconds=None)
                    entries = found.get(follower.key, [])
                    follower.give(entries)
                    if len(entries) < _COUNT:
                        break
        except Exception as error:  # noqa: BLE001  # whatever Redis's client raises, the text comes with the result
            self._note(error)
        return follower.take()

    async def run(self) -> None:
        """Read until cancelled."""
        if self._redis is None or self._blocking is None:
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._wake_reader(self._redis))
            while True:
                await self._any.wait()
                if not self._followers:
                    self._any.clear()
                    continue
                try:
                    await self._read_next(self._blocking)
                except Exception as error:  # noqa: BLE001  # as above
                    self._note(error)
                    with suppress(Exception):
                        await self._blocking.connection_pool.disconnect()
                    await asyncio.sleep(_PAUSE_SECONDS)
                else:
                    self._note(None)

    async def close(self) -> None:
        """Close the connections."""
        for redis in (self._blocking, self._redis):
            if redis is not None:
                with suppress(Exception):
                    await redis.aclose()

    async def _read_next(self, redis: Redis) -> None:
        """Wait for the next entries of any stream and hand them out."""
        places = {
            key: min(one.position for one in followers if one.hungry)
            for key, followers in self._followers.items()
            if any(one.hungry for one in followers)
        }
        async with asyncio.timeout(2 * _BLOCK_SECONDS):
            found = await _read(redis, {self._wake_key: self._woken, **places}, block_seconds=_BLOCK_SECONDS)
        if not found:
            return
        for key, entries in found.items():
            if key == self._wake_key:
                self._woken = entries[-1].id
            for follower in self._followers.get(key, ()):
                # who came meanwhile has not had what was before: the next read is for it
                if follower.hungry and follower.position >= places[key]:
                    follower.give(entries)
        await asyncio.sleep(_GATHER_SECONDS * max(1.0, len(places) / _GATHER_FOLLOWERS))

    async def _wake_reader(self, redis: Redis) -> None:
        """Let the blocked read see that the set of streams has changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS), redis.pipeline(transaction=False) as pipeline:
                    pipeline.xadd(self._wake_key, {RUN: ""}, maxlen=1)
                    pipeline.expire(self._wake_key, _WAKE_KEEP_SECONDS)
                    await pipeline.execute()
            except Exception:  # noqa: BLE001  # as above
                await asyncio.sleep(_PAUSE_SECONDS)
                self._changed.set()

    def _note(self, error: Exception | None) -> None:
        """One line when it goes, one when it is back."""
        if (error is None) is self._reachable:
            return
        self._reachable = error is None
        if error is None:
            get_logger().info("redis_reachable", of="token streams")
        else:
            get_logger().warning("redis_unreachable", of="token streams", error=redis_in_words(error))


async def _read(redis: Redis, places: dict[str, EntryId], *, block_seconds: float | None) -> dict[str, list[Entry]]:
    """Entries after these places, by stream; of each at most `_COUNT`."""
    streams: Any = {key: f"{place[0]}-{place[1]}" for key, place in places.items()}
    block = None if block_seconds is None else int(block_seconds * 1000)
    found: Any = await redis.xread(streams, count=_COUNT, block=block)
    return {
        key.decode(): [_entry(name, fields) for name, fields in entries]
        for key, entries in (found.items() if isinstance(found, dict) else found or ())
    }


def _entry(name: bytes, fields: dict[bytes, bytes]) -> Entry:
    milliseconds, _, number = name.partition(b"-")
    text = {key.decode(): value.decode(errors="replace") for key, value in fields.items()}
    return Entry((int(milliseconds), int(number)), text.get(RUN, ""), text.get(TEXT, ""))
