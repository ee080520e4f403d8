"""Opens what AI workers call providers with: aiohttp's engine behind httpx's transport interface.

The transport is used without httpx's client around it, which costs as much as the call and does what no call here may
have: redirects, cookies, proxies from the environment. A key goes to the configured address or nowhere.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

_KEEPALIVE_SECONDS = (
    4.0  # below uvicorn's and llama.cpp's five, so that a kept connection is not closed under a request
)


@asynccontextmanager
async def open_client() -> AsyncIterator[httpx.AsyncBaseTransport]:
    """The transport for all providers; closed, with its connections, on leaving. Each call sets its own time-outs."""
    # prefetch bounds the calls; the pool must not be a second, hidden queue
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS, ssl=httpx.create_ssl_context())
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
    async with AiohttpTransport(client=session) as transport:
        yield transport
