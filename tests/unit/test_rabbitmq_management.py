"""RabbitMQ's management API: a server that never finishes its answer does not hold a command for ever."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ops.admin.rabbitmq_management import Management, ManagementError

_EVERY_SECONDS = 0.02


@pytest.fixture
async def dripping() -> AsyncIterator[int]:
    """Port of a server that sends one byte of its answer after another, and has no end."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(_EVERY_SECONDS)
        except OSError:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_an_answer_that_comes_drop_by_drop_is_given_up(dripping: int) -> None:
    async with Management(f"http://admin:hush@127.0.0.1:{dripping}", timeout_seconds=5 * _EVERY_SECONDS) as api:
        with pytest.raises(ManagementError) as caught:
            await api.get("overview")

    assert f"127.0.0.1:{dripping}" in str(caught.value)
    assert "it does not answer in time" in str(caught.value)
    assert "hush" not in str(caught.value)
