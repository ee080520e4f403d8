"""A connection to the broker, opened when it is needed; several intakes may share one, a channel each."""

import asyncio
from contextlib import suppress
from typing import Any

from contracts.amqp.broker import connect
from contracts.metrics import RECONNECTS

_CLOSE_SECONDS = 3.0


class Connection:
    """One connection, opened again when it was lost.

    Args:
        url: AMQP URL of this process's user.
        name: Connection name shown by the broker.
        purpose: Under which reconnections are counted.
    """

    def __init__(self, url: str, *, name: str, purpose: str = "consumer") -> None:
        self._url = url
        self._reconnects = RECONNECTS.labels(purpose)
        self._name = name
        self._connection: Any = None
        self._opening = asyncio.Lock()
        self._opened = 0

    @property
    def is_open(self) -> bool:
        """Whether it is open right now."""
        connection = self._connection
        # aio-pika's own flag stays False when heartbeats died
        return (
            connection is not None
            and connection.transport is not None
            and not connection.transport.connection.is_closed
        )

    async def opened(self) -> Any:
        """The open connection; opens it when it is not.

        Raises:
            BrokerAway: It cannot be opened.
        """
        async with self._opening:
            if not self.is_open:
                await self.close()
                self._connection = await connect(self._url, name=self._name)
                self._opened += 1
                if self._opened > 1:
                    self._reconnects.inc()
            return self._connection

    async def close(self) -> None:
        """Close it, and every channel on it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await connection.close()
