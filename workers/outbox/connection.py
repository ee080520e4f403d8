"""A job's connection to the broker, opened when it is needed and again when it has died."""

import asyncio
from contextlib import suppress

import aiormq
from aio_pika.abc import AbstractConnection

from contracts.broker import connect

_CLOSE_SECONDS = 3.0


class JobConnection:
    """One connection for one job.

    Args:
        url: AMQP URL of this process's user.
        name: What the broker shows for it.
    """

    def __init__(self, url: str, *, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: AbstractConnection | None = None

    async def opened(self) -> AbstractConnection:
        """The connection, opened anew when there is none or it is dead.

        Raises:
            BrokerAway: The broker cannot be reached.
        """
        connection = self._connection
        # aio-pika's own flag stays False when heartbeats died
        if connection is None or connection.transport is None or connection.transport.connection.is_closed:
            self._connection = connection = await connect(self._url, name=self._name)
        return connection

    async def close(self) -> None:
        """Close it; never fails."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(aiormq.AMQPError, OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await connection.close()
