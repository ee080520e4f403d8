"""Idempotency: the id that an Idempotency-Key stands for, and its reservation before anything is published.

Requests that come while a reservation is on its way share the next one, so that a burst costs two statements.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from gateway import PUBLISHER
from gateway.database import Database, DatabaseAway, DataRefused

_NAMESPACE = UUID("0f7f6c0a-6a0e-5d53-9f0c-3d6f0a4f9e11")
_RESERVE_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_MAX_BATCH = 500

_RESERVE = """
insert into command_keys (publisher, id, fingerprint)
select $1, id, fingerprint from unnest($2::uuid[], $3::bytea[]) as t(id, fingerprint) order by id
on conflict do nothing
"""

# A statement of its own: it sees the keys that the first one met, whoever wrote them. The publisher is a column, since
# with a constant a plan made on an empty table reads every key of that publisher.
READ = """
select k.id, k.fingerprint, is_kept(k.day) as kept, c.state, c.result, c.accepted_at, c.deadline_at
from unnest($1::text[], $2::uuid[]) as w(publisher, id)
join command_keys k on k.publisher = w.publisher and k.id = w.id
left join commands c on c.publisher = k.publisher and c.id = k.id and c.day = k.day
"""


RENEW = "select renew_keys($1::text[], $2::uuid[], $3::bytea[])"
"""A key whose command is not kept any more stands for the new body: it is a new key."""


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
        self._queue: list[tuple[UUID, bytes, asyncio.Future[Earlier | None]]] = []
        self._wake = asyncio.Event()

    async def reserve(self, command_id: UUID, fingerprint: bytes) -> Earlier | None:
        """Make an id stand for one body, unless it stands for one already.

        Args:
            command_id: From `identity`.
            fingerprint: Of kind and body.

        Returns:
            What stands under it now; None when PostgreSQL is away: then the worker finds a reused id.
        """
        future: asyncio.Future[Earlier | None] = asyncio.get_running_loop().create_future()
        self._queue.append((command_id, fingerprint, future))
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
                    found = await self._reserve([(one, fingerprint) for one, fingerprint, _ in batch])
            except (DatabaseAway, DataRefused):
                away_until = loop.time() + _PAUSE_SECONDS
            finally:  # whoever asked waits for this alone
                for command_id, _, future in batch:
                    if not future.done():
                        future.set_result(found.get(command_id))

    async def _reserve(self, keys: list[tuple[UUID, bytes]]) -> dict[UUID, Earlier]:
        ids = [command_id for command_id, _ in keys]

        async def work(connection: Any) -> list[Any]:
            await connection.execute(_RESERVE, PUBLISHER, ids, [fingerprint for _, fingerprint in keys])
            rows: list[Any] = await connection.fetch(READ, [PUBLISHER] * len(ids), ids)
            forgotten = [row["id"] for row in rows if not row["kept"]]
            if forgotten:
                bodies = dict(keys)
                await connection.execute(
                    RENEW, [PUBLISHER] * len(forgotten), forgotten, [bodies[one] for one in forgotten]
                )
                rows = await connection.fetch(READ, [PUBLISHER] * len(ids), ids)
            return rows

        rows = await self._database.run(work, timeout_seconds=_RESERVE_SECONDS)
        return {
            row["id"]: Earlier(row["fingerprint"], row["state"], row["result"], row["accepted_at"], row["deadline_at"])
            for row in rows
        }
