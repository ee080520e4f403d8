"""A webhook receiver on a real socket, for tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
from aiohttp import web


@dataclass(slots=True)
class Receiver:
    """A webhook receiver on a real socket."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    """Statuses to answer with, in order; 200 after that."""
    headers: dict[str, str] = field(default_factory=dict)
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, it lets requests wait."""
    inside: int = 0
    most_inside: int = 0

    @property
    def texts(self) -> list[str]:
        """Messages in the order in which they came."""
        return [orjson.loads(body)["data"]["message"] for _, body in self.received]

    async def handle(self, request: web.Request) -> web.Response:
        """Record one webhook."""
        self.received.append((dict(request.headers), await request.read()))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self.open.wait()
        finally:
            self.inside -= 1
        return web.Response(status=self.answers.pop(0) if self.answers else 200, headers=self.headers)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Open a receiver on a free port."""
    receiver = Receiver()
    receiver.open.set()
    application = web.Application()
    application.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/hook"
    try:
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()
