"""A port that accepts and closes at once, as a proxy with nothing behind it does, until it is opened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit


@dataclass(slots=True)
class Door:
    """The port, and what is behind it."""

    url: str
    """The service's address, by way of this door."""
    slammed: int = 0
    """Connections that were closed at once."""
    is_open: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def slamming_door(url: str) -> AsyncIterator[Door]:
    """A door before a service.

    Args:
        url: The service's own address.
    """
    parts = urlsplit(url)
    door = Door("")

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not door.is_open.is_set():
            door.slammed += 1
            if door.slammed % 2:
                writer.transport.abort()
            else:
                writer.close()
            return
        with suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection(parts.hostname, parts.port)
            await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))

    server = await asyncio.start_server(enter, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    login, at, _ = parts.netloc.rpartition("@")
    door.url = urlunsplit(parts._replace(netloc=f"{login}{at}127.0.0.1:{port}"))
    try:
        yield door
    finally:
        server.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()
