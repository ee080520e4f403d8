"""Listens as a phone's `adbd` does over TCP, lets real adb servers in, and vanishes and comes back on command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ops.simulators.phone.connection import Connection
from ops.simulators.phone.device import Device


class _Listener:
    """Accepts adb servers while the phone is present."""

    def __init__(self, device: Device, *, host: str, port: int) -> None:
        self.port = port
        self._device = device
        self._host = host
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self._device, reader, writer)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    async def follow(self) -> None:
        """Vanish and come back as the behaviour says; until cancelled."""
        control = self._device.control
        while True:
            await control.until(lambda behaviour: not behaviour.present)
            await self.close()
            await control.until(lambda behaviour: behaviour.present)
            await self.listen()

    async def close(self) -> None:
        """Stop listening and reset every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = list(self._connections)
        for connection in connections:
            connection.gone.set()
        for connection in connections:
            await connection.finished.wait()


@asynccontextmanager
async def serving(device: Device, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve a phone to adb servers while the block runs; yields its port, which is a free one for 0."""
    listener = _Listener(device, host=host, port=port)
    await listener.listen()
    try:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(listener.follow())
            try:
                yield listener.port
            finally:
                following.cancel()
                await listener.close()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        [failure] = group.exceptions  # the block's own: its caller should not see how this is made
        raise failure from failure.__cause__
