"""Looks into RabbitMQ's queues from outside, one question at a time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aio_pika.abc import AbstractChannel, AbstractConnection

from contracts.amqp.broker import connect

_ANSWER_SECONDS = 30.0


class Queues:
    """Questions over one connection; ask at least every few seconds, since its heartbeats run only meanwhile."""

    def __init__(self, runner: asyncio.Runner, channel: AbstractChannel) -> None:
        self._runner = runner
        self._channel = channel

    def ready(self, name: str) -> int:
        """Messages that wait in a queue.

        Args:
            name: The queue.
        """
        return self._declared(name)[0]

    def consumers(self, name: str) -> int:
        """Consumers of a queue.

        Args:
            name: The queue.
        """
        return self._declared(name)[1]

    def purge(self, name: str) -> None:
        """Drop every message that waits in a queue.

        Args:
            name: The queue.
        """

        async def purge() -> None:
            queue = await self._channel.get_queue(name, ensure=False)
            await queue.purge()

        self._runner.run(purge())

    def take(self, name: str, count: int) -> list[tuple[str, bytes]]:
        """Take messages out of a queue.

        Args:
            name: The queue.
            count: How many must be there.

        Returns:
            Message id and body of each.
        """

        async def take() -> list[tuple[str, bytes]]:
            taken: list[tuple[str, bytes]] = []
            queue = await self._channel.get_queue(name, ensure=False)
            async with asyncio.timeout(_ANSWER_SECONDS), queue.iterator(no_ack=True) as messages:
                async for message in messages:
                    taken.append((message.message_id or "", message.body))
                    if len(taken) == count:
                        break
            return taken

        return self._runner.run(take()) if count else []

    def _declared(self, name: str) -> tuple[int, int]:
        async def declare() -> tuple[int, int]:
            async with asyncio.timeout(_ANSWER_SECONDS):
                queue = await self._channel.declare_queue(name, passive=True)
            result = queue.declaration_result
            return result.message_count or 0, result.consumer_count or 0

        return self._runner.run(declare())


@contextmanager
def watching(url: str) -> Iterator[Queues]:
    """Open a connection for questions, close it at the end.

    Args:
        url: AMQP URL of a user who may look.
    """
    with asyncio.Runner() as runner:
        connection, channel = runner.run(_open(url))
        try:
            yield Queues(runner, channel)
        finally:
            runner.run(connection.close())


async def _open(url: str) -> tuple[AbstractConnection, AbstractChannel]:
    connection = await connect(url, name="ish benchmark")
    return connection, await connection.channel()
