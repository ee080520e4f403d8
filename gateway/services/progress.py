"""Where commands that somebody follows are on their way: one question to PostgreSQL for all of them, twice a second."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from contracts.results import State
from gateway.services.database import Database, DatabaseAway, DataRefused
from gateway.services.waiting_for import read_waiting

_POLL_SECONDS = 0.5
_POLL_KEYS = 500
"""With more commands than this the polls become rarer, so that their cost stays the same."""
_POLL_TIMEOUT_SECONDS = 1.0

PROGRESS = """
select k.publisher, k.id, c.state, c.attempt, c.retry_at
from unnest($1::text[], $2::uuid[]) as w(publisher, id)
join command_keys k on k.publisher = w.publisher and k.id = w.id
join commands c on c.publisher = k.publisher and c.id = k.id and c.day = k.day
"""

_Key = tuple[str, UUID]


@dataclass(frozen=True, slots=True)
class Step:
    """Where a command is."""

    status: str
    attempt: int = 0
    """Runs so far, counting one that goes on; 0 before the first."""
    retry_at: datetime | None = None
    waiting_for: dict[str, Any] | None = None


class Watched:
    """One follower of one command.

    Args:
        wake: Set when its step has changed.
        step: Where it was last.
    """

    def __init__(self, wake: asyncio.Event, step: Step) -> None:
        self.step = step
        self._wake = wake

    def move(self, step: Step) -> None:
        """Note where it is.

        Args:
            step: The newest.
        """
        if step != self.step:
            self.step = step
            self._wake.set()


class Progress:
    """Everyone who follows a command.

    Args:
        database: Where commands are stored.
        lease_seconds: Age of a heartbeat at which its worker is gone.
    """

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._watched: dict[_Key, list[Watched]] = {}
        self._any = asyncio.Event()

    @contextmanager
    def watch(self, publisher: str, command_id: UUID, wake: asyncio.Event, step: Step) -> Iterator[Watched]:
        """Follow a command while the block runs.

        Args:
            publisher: Its publisher.
            command_id: The command.
            wake: Set when its step has changed.
            step: Where it was last.
        """
        key, watched = (publisher, command_id), Watched(wake, step)
        self._watched.setdefault(key, []).append(watched)
        self._any.set()
        try:
            yield watched
        finally:
            left = self._watched[key]
            left.remove(watched)
            if not left:
                del self._watched[key]

    async def run(self) -> None:
        """Ask PostgreSQL until cancelled; never while nobody follows anything."""
        while True:
            await self._any.wait()
            await asyncio.sleep(_POLL_SECONDS * max(1.0, len(self._watched) / _POLL_KEYS))
            keys = sorted(self._watched)
            if not keys:
                self._any.clear()
                continue
            try:
                steps = await self._database.run(partial(self._steps, keys=keys), timeout_seconds=_POLL_TIMEOUT_SECONDS)
            except (DatabaseAway, DataRefused):
                continue
            for key, step in steps.items():
                for watched in self._watched.get(key, ()):
                    watched.move(step)

    async def _steps(self, connection: Any, *, keys: Sequence[_Key]) -> dict[_Key, Step]:
        publishers, ids = [publisher for publisher, _ in keys], [command_id for _, command_id in keys]
        rows = await connection.fetch(PROGRESS, publishers, ids)
        waiting = await read_waiting(connection, publishers, ids, lease_seconds=self._lease_seconds)
        # an end is told with its result, by `gateway.services.result_waiters`
        return {
            (row["publisher"], row["id"]): Step(
                row["state"], row["attempt"], row["retry_at"], waiting.get((row["publisher"], row["id"]))
            )
            for row in rows
            if row["state"] in {State.QUEUED, State.RUNNING, State.RETRYING}
        }
