"""Server-sent events: their form on the wire, and the answer that sends them until they end or the client leaves."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

KEEP_ALIVE_SECONDS = 10.0
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: clients skip it, and proxies see that the connection is used."""


def event(name: str, data: bytes, *, id_: str | None = None) -> bytes:
    """One event.

    Args:
        name: Its type.
        data: JSON.
        id_: Sent back as Last-Event-ID by a client that comes again; None leaves the last one standing.
    """
    lines = b"".join(b"data: %s\n" % line for line in data.split(b"\n"))
    place = b"" if id_ is None else b"id: %s\n" % id_.encode()
    return b"event: %s\n%s%s\n" % (name.encode(), place, lines)


async def woken(wake: asyncio.Event, seconds: float = KEEP_ALIVE_SECONDS) -> bool:
    """Wait until something is to be sent; False when it is time for a comment instead.

    Args:
        wake: Cleared here.
        seconds: The longest silence.
    """
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return False
    wake.clear()
    return True


async def departure(receive: Receive) -> None:
    """Wait until the client has gone away; its request must have been read whole.

    Args:
        receive: ASGI's.
    """
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends pieces as they come.

    Args:
        pieces: Bytes to send, each at once; closed when the client leaves.
        headers: More headers.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], *, headers: Mapping[str, str] | None = None) -> None:
        # no proxy may gather what is to be seen while it is made
        fixed = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
        super().__init__(media_type="text/event-stream", headers={**fixed, **(headers or {})})
        del self.headers["content-length"]
        self._pieces = pieces

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send(send))
            gone = tasks.create_task(departure(receive))
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            sending.cancel()
            gone.cancel()

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
