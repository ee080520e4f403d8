"""Gives each phone its queue: declared when a worker has seen the phone, bound to its names, removed a week after it.

Workers may not declare anything. A queue that was deleted under its phone is noted as lost and declared again, as
`guard` does with those of the topology.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import aiormq
from pamqp import commands as spec

from contracts.amqp.broker import BrokerAway, declare, look_at_queues, passing_channel
from contracts.logs import get_logger
from contracts.restarting import tell_fault
from contracts.topology import COMMANDS, device_key, device_queue, device_topology
from workers.amqp.connection import Connection
from workers.outbox.repair.queue_guard import NOTE_LOSSES

_ROUND_SECONDS = 30.0
_LOOK_EVERY_ROUNDS = 5
_POSTPONED_SECONDS = 5.0

# a phone without a name of its own (never ready so far) gets none: what it is called now may be another's tomorrow
_PHONES = """
select serial, transport, seen_at > clock_timestamp() - interval '7 days' as present from devices
where model is not null
"""


class DeviceQueues:
    """The job.

    Args:
        url: AMQP URL of this process's user, which may configure `ish.*`.
        database: asyncpg pool.
        queue_max_length: See `contracts.topology.topology`.
    """

    def __init__(self, url: str, database: Any, *, queue_max_length: int) -> None:
        self._database = database
        self._queue_max_length = queue_max_length
        self._connection = Connection(url, name="ish device queues", purpose="repair")
        self._declared: dict[str, str] = {}
        """Transport by serial, of phones whose queue is there."""
        self._removed: set[str] = set()
        self._postponed: dict[str, float] = {}
        """Phones for which something failed, and `loop.time()` at which it is tried again."""
        self._ready: dict[str, int] = {}
        self._rounds = 0
        self._log = get_logger(job="device_queues")

    @property
    def ready(self) -> Mapping[str, int]:
        """Messages waiting in each phone's queue when it was last looked at; empty while the broker is away."""
        return MappingProxyType(self._ready)

    async def round(self) -> bool:
        """Bring the queues in line with the phones once.

        Returns:
            False.

        Raises:
            BrokerAway, aiormq.AMQPError, TimeoutError: The broker is away.
        """
        rows = await self._database.fetch(_PHONES)
        present = _names(row for row in rows if row["present"])
        try:
            async with asyncio.timeout(_ROUND_SECONDS):
                for serial, transport in present.items():
                    if self._declared.get(serial) != transport:
                        await self._apart(serial, partial(self._give, serial, transport))
                known = {row["serial"] for row in rows}
                self._removed &= known  # a phone that is not on record any more need not be remembered
                self._postponed = {one: at for one, at in self._postponed.items() if one in known}
                for serial in (known | set(self._declared)) - set(present) - self._removed:
                    await self._apart(serial, partial(self._remove, serial))
                if self._rounds % _LOOK_EVERY_ROUNDS == 0:
                    await self._look()
        except BaseException:
            self._ready = {}
            await self._connection.close()
            raise
        self._rounds += 1
        return False

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def _apart(self, serial: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something for one phone; what only it is to blame for (a name that makes no queue) does not hold up the others."""
        now = asyncio.get_running_loop().time()
        if self._postponed.get(serial, now) > now:
            return
        try:
            await work()
        except Exception as error:
            if isinstance(error, BrokerAway | aiormq.AMQPError | OSError) or not self._connection.is_open:
                raise
            tell_fault("device queues", error, serial=serial)
            self._postponed[serial] = now + _POSTPONED_SECONDS
        else:
            self._postponed.pop(serial, None)

    async def _give(self, serial: str, transport: str) -> None:
        """Declare a phone's queue, and move its second name when that has changed."""
        connection, before = await self._connection.opened(), self._declared.get(serial)
        await declare(connection, device_topology(serial, transport, self._queue_max_length))
        if before and before not in (serial, transport):
            async with passing_channel(connection) as channel:
                await channel.queue_unbind(device_queue(serial), COMMANDS, device_key(before))
        self._declared[serial] = transport
        self._removed.discard(serial)
        if before is None:
            self._log.info("queue_declared", queue=device_queue(serial))

    async def _remove(self, serial: str) -> None:
        """Delete the queue of a phone that is gone, unless something waits in it or somebody consumes it.

        Its names are taken from it first: what is published meanwhile goes to `ish.unrouted`, not down with the queue.
        (A quorum queue cannot be asked to be deleted only if it is empty.)
        """
        name, transport = device_queue(serial), self._declared.get(serial, "")
        async with passing_channel(await self._connection.opened()) as channel:
            try:
                queue = await channel.queue_declare(name, passive=True)
            except aiormq.ChannelNotFoundEntity:
                self._forget(serial)
                return
            if not _is_unused(queue):
                return
            for known in filter(None, {serial, transport}):
                await channel.queue_unbind(name, COMMANDS, device_key(known))
            if _is_unused(await channel.queue_declare(name, passive=True)):
                await channel.queue_delete(name)
                self._forget(serial)
                self._log.info("queue_removed", queue=name)
            else:
                await self._give(serial, transport)

    def _forget(self, serial: str) -> None:
        self._declared.pop(serial, None)
        self._ready.pop(device_queue(serial), None)
        self._removed.add(serial)

    async def _look(self) -> None:
        """Ask after each queue; a 404 closes that channel only."""
        missing: list[str] = []
        ready: dict[str, int] = {}
        connection = await self._connection.opened()
        looked_at = await look_at_queues(connection, [device_queue(serial) for serial in self._declared])
        for serial, (name, found) in zip(self._declared, looked_at.items(), strict=True):
            if found is None:
                missing.append(serial)
            else:
                ready[name] = found.message_count or 0
        self._ready = ready
        if missing:
            names = [device_queue(serial) for serial in missing]
            await self._database.execute(NOTE_LOSSES, names)
            for serial in missing:
                await self._give(serial, self._declared.pop(serial))
            self._log.error("queue_redeclared", queues=names, work_queues=names)


def _names(rows: Iterable[Any]) -> dict[str, str]:
    """Second names of phones, by their first; none where several phones are called so, or another one's first name is that."""
    transports = {row["serial"]: row["transport"] for row in rows}
    times = Counter(transports.values())
    return {
        serial: transport if times[transport] == 1 and transport not in transports.keys() - {serial} else ""
        for serial, transport in transports.items()
    }


def _is_unused(found: spec.Queue.DeclareOk) -> bool:
    return not found.message_count and not found.consumer_count


def together(*parts: Callable[[], Mapping[str, int]]) -> Callable[[], Mapping[str, int]]:
    """Messages waiting in the queues of several jobs, as one.

    Args:
        parts: Each job's own.
    """
    return lambda: {queue: ready for part in parts for queue, ready in part().items()}
