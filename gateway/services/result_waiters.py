"""Requests that wait for a command's result: woken by its reply, or by one question to PostgreSQL for all of them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from gateway.services.database import Database, DatabaseAway, DataRefused

_POLL_SECONDS = 0.1
_POLL_KEYS = 500
"""With more waiters than this the polls become rarer, so that their cost stays the same."""
_POLL_TIMEOUT_SECONDS = 1.0
_PAUSE_SECONDS = 1.0

FINISHED = """
select k.publisher, k.id, c.result
from unnest($1::text[], $2::uuid[]) as w(publisher, id)
join command_keys k on k.publisher = w.publisher and k.id = w.id
join commands c on c.publisher = k.publisher and c.id = k.id and c.day = k.day
where c.result is not null
"""

Key = tuple[str, UUID]


class Waiting:
    """Who waits for what.

    Args:
        database: Where results are stored.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiters: dict[Key, list[asyncio.Future[bytes | None]]] = {}
        self._any = asyncio.Event()
        self._stopping = False

    @contextmanager
    def expect(self, publisher: str, command_id: UUID) -> Iterator[asyncio.Future[bytes | None]]:
        """A future for a command's result: its stored bytes, or None when this gateway stops.

        Enter it before the command is published, so that no reply is too early.

        Args:
            publisher: The command's publisher.
            command_id: The command.
        """
        key = (publisher, command_id)
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, []).append(future)
        self._any.set()
        if self._stopping:
            future.set_result(None)
        try:
            yield future
        finally:
            future.cancel()
            left = self._waiters[key]
            left.remove(future)
            if not left:
                del self._waiters[key]

    def finish(self, publisher: str, command_id: UUID, result: bytes) -> None:
        """Wake whoever waits for a command.

        Args:
            publisher: Its publisher.
            command_id: The command.
            result: The stored result.
        """
        for future in self._waiters.get((publisher, command_id), ()):
            if not future.done():
                future.set_result(result)

    def stop(self) -> None:
        """Send everyone away with what is known now; a stopping gateway does not wait a minute for them."""
        self._stopping = True
        for waiters in self._waiters.values():
            for future in waiters:
                if not future.done():
                    future.set_result(None)

    async def run(self) -> None:
        """Ask PostgreSQL until cancelled; for results whose reply went elsewhere or was lost."""
        while True:
            await self._any.wait()
            await asyncio.sleep(_POLL_SECONDS * max(1.0, len(self._waiters) / _POLL_KEYS))
            keys = sorted(self._waiters)
            if not keys:
                self._any.clear()
                continue
            try:
                rows = await self._database.fetch(
                    FINISHED,
                    [publisher for publisher, _ in keys],
                    [command_id for _, command_id in keys],
                    timeout_seconds=_POLL_TIMEOUT_SECONDS,
                )
            except (DatabaseAway, DataRefused):
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            for row in rows:
                self.finish(row["publisher"], row["id"], row["result"].encode())


async def within(future: asyncio.Future[bytes | None], seconds: float) -> bytes | None:
    """A waited-for result, or None when it does not come in time.

    Args:
        future: From `Waiting.expect`.
        seconds: The longest wait.
    """
    try:
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError:
        return None
