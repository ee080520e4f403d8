"""Opens the one HTTP client of an AI worker: aiohttp's engine behind httpx's interface."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from httpx_aiohttp import AiohttpTransport

_MAX_CONNECTIONS = 10_000  # prefetch bounds the calls; the pool must not be a second, hidden queue
_KEEPALIVE_SECONDS = (
    4.0  # below uvicorn's and llama.cpp's five, so that a kept connection is not closed under a request
)


@asynccontextmanager
async def open_client() -> AsyncIterator[httpx.AsyncClient]:
    """The client for all providers; closed, with its connections, on leaving.

    Proxies are not taken from the environment and redirects are not followed: a key goes to the configured address or
    nowhere. Each call sets its own time-outs, so the client has none.
    """
    limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEPALIVE_SECONDS)
    async with httpx.AsyncClient(
        transport=AiohttpTransport(limits=limits),
        timeout=httpx.Timeout(None),
        headers={"User-Agent": "ish-chat"},
        trust_env=False,
    ) as client:
        yield client
