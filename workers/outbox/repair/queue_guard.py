"""Watches that every queue is there; a missing one is noted, then declared again with everything that belongs to it.

The note (`queue_losses`) is written first: should this process die in between, the commands that were in the queue are
still published again by `republish`.
"""

import asyncio
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from aio_pika.abc import AbstractConnection

from contracts.amqp.broker import declare, look_at_queues
from contracts.logs import get_logger
from contracts.topology import DEAD, UNROUTED, WORK_QUEUES, topology
from workers.amqp.connection import Connection

_ROUND_SECONDS = 30.0
_FRESH_SECONDS = 1.0

NOTE_LOSSES = """
with again as (
  update queue_losses set noticed_at = clock_timestamp() where queue = any ($1::text[]) and handled_at is null
  returning queue
)
insert into queue_losses (queue) select name from unnest($1::text[]) name where name not in (select queue from again)
"""
"""A queue that is lost again before its loss was dealt with is dealt with anew, up to the later moment."""


class Guard:
    """The job.

    Args:
        url: AMQP URL of this process's user, which may configure `ish.*`.
        database: asyncpg pool.
        queue_max_length: See `contracts.topology.topology`.
        on_look: Called with the name of each queue, the messages that wait in it and its consumers.
    """

    def __init__(
        self, url: str, database: Any, *, queue_max_length: int, on_look: Callable[[str, int, int], None]
    ) -> None:
        self._database = database
        self._wanted = topology(queue_max_length)
        self._on_look = on_look
        self._connection = Connection(url, name="ish guard", purpose="repair")
        self._restored_at = 0.0
        self._restoring = asyncio.Lock()
        self._ready: dict[str, int] = {}
        self._log = get_logger(job="guard")

    @property
    def ready(self) -> MappingProxyType[str, int]:
        """Messages waiting in each queue at the last round; empty before the first and while the broker is away."""
        return MappingProxyType(self._ready)

    async def round(self) -> bool:
        """Look at every queue once.

        Returns:
            False.

        Raises:
            BrokerAway, aiormq.AMQPError, TimeoutError: The broker is away.
        """
        try:
            async with asyncio.timeout(_ROUND_SECONDS), self._restoring:
                connection = await self._connection.opened()
                missing = await self._look(connection)
                if missing:
                    await self._restore(connection, missing)
        except BaseException:
            self._ready = {}
            await self._connection.close()
            raise
        return False

    async def restore(self) -> None:
        """Make sure that every queue and binding is there; does nothing when that was done within the last second.

        Raises:
            BrokerAway, aiormq.AMQPError, TimeoutError: The broker is away.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_ROUND_SECONDS), self._restoring:
            if loop.time() - self._restored_at < _FRESH_SECONDS:
                return
            connection = await self._connection.opened()
            await self._restore(connection, await self._look(connection))

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _look(self, connection: AbstractConnection) -> list[str]:
        """Ask after each queue; a 404 closes that channel only."""
        missing: list[str] = []
        ready: dict[str, int] = {}
        looked_at = await look_at_queues(connection, [queue.name for queue in self._wanted.queues])
        for name, found in looked_at.items():
            if found is None:
                missing.append(name)
            else:
                ready[name] = found.message_count or 0
                self._on_look(name, ready[name], found.consumer_count or 0)
        self._ready = ready
        return missing

    async def _restore(self, connection: AbstractConnection, missing: list[str]) -> None:
        lost = [name for name in missing if name not in (DEAD, UNROUTED)]
        if lost:
            await self._database.execute(NOTE_LOSSES, lost)
        await declare(connection, self._wanted)
        self._restored_at = asyncio.get_running_loop().time()
        if missing:
            self._log.error("queue_redeclared", queues=missing, work_queues=[n for n in missing if n in WORK_QUEUES])
