"""Idempotency: the id that an Idempotency-Key stands for, and its reservation before anything is published.

Requests that come while a reservation is on its way share the next one, so that a burst costs two statements.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from contracts.tables import KEY, NEW_KEYS, RENEW_KEYS, CommandRow, Parameters
from gateway import PUBLISHER
from gateway.services.database import Database, DatabaseAway, DataRefused

_NAMESPACE = UUID("0f7f6c0a-6a0e-5d53-9f0c-3d6f0a4f9e11")
_RESERVE_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_MAX_BATCH = 500

_RESERVE = f"""
with w as (
  select * from {Parameters().unnest(KEY)} order by publisher, id
),
{NEW_KEYS}
select
"""  # noqa: S608  # only constants

# A statement of its own: it sees the keys that the first one met, whoever wrote them. The publisher is a column, since
# with a constant a plan made on an empty table reads every key of that publisher.
READ = """
select k.id, k.fingerprint, is_kept(k.day) as kept, c.state, c.result, c.accepted_at, c.deadline_at
from unnest($1::text[], $2::uuid[]) as w(publisher, id)
join command_keys k on k.publisher = w.publisher and k.id = w.id
left join commands c on c.publisher = k.publisher and c.id = k.id and c.day = k.day
"""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What stands under a reserved id."""

    fingerprint: bytes
    state: str | None
    """None when nothing is recorded under it: the publish failed, or is on its way."""
    result: str | None
    accepted_at: datetime | None
    deadline_at: datetime | None


def identity(owner: str, idempotency_key: str) -> UUID:
    """The command id of an idempotency key: the same for the same owner and key, on every gateway, for ever.

    Args:
        owner: Owner of the API key.
        idempotency_key: As the client gave it.
    """
    return uuid5(_NAMESPACE, f"{owner}\0{idempotency_key}")


class Identities:
    """Reserves ids.

    Args:
        database: Where keys are stored.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[tuple[CommandRow, asyncio.Future[Earlier | None]]] = []
        self._wake = asyncio.Event()

    async def reserve(self, command: CommandRow) -> Earlier | None:
        """Make an id stand for one body, unless it stands for one already.

        Args:
            command: Its id is from `identity`.

        Returns:
            What stands under it now; None when PostgreSQL is away: then the worker finds a reused id.
        """
        future: asyncio.Future[Earlier | None] = asyncio.get_running_loop().create_future()
        self._queue.append((command, future))
        self._wake.set()
        return await future

    async def run(self) -> None:
        """Reserve until cancelled."""
        away_until = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            batch, self._queue = self._queue[:_MAX_BATCH], self._queue[_MAX_BATCH:]
            if not self._queue:
                self._wake.clear()
            found: dict[UUID, Earlier] = {}
            try:
                if loop.time() >= away_until:
                    found = await self._reserve([command for command, _ in batch])
            except (DatabaseAway, DataRefused):
                away_until = loop.time() + _PAUSE_SECONDS
            finally:  # whoever asked waits for this alone
                for command, future in batch:
                    if not future.done():
                        future.set_result(found.get(command.envelope.id))

    async def _reserve(self, commands: list[CommandRow]) -> dict[UUID, Earlier]:
        ids = [command.envelope.id for command in commands]

        async def work(connection: Any) -> list[Any]:
            await connection.execute(_RESERVE, *KEY.arrays(commands))
            rows: list[Any] = await connection.fetch(READ, [PUBLISHER] * len(ids), ids)
            forgotten = {row["id"] for row in rows if not row["kept"]}
            if forgotten:
                renewed = [command for command in commands if command.envelope.id in forgotten]
                await connection.execute(RENEW_KEYS, *KEY.arrays(renewed))
                rows = await connection.fetch(READ, [PUBLISHER] * len(ids), ids)
            return rows

        rows = await self._database.run(work, timeout_seconds=_RESERVE_SECONDS)
        return {
            row["id"]: Earlier(row["fingerprint"], row["state"], row["result"], row["accepted_at"], row["deadline_at"])
            for row in rows
        }
