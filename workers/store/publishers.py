"""Knows which kinds each outside publisher may send, so that a worker need not trust the broker's check alone.

Older RabbitMQ (3.10; 4.0 no more) checks only the key that a message is published with: CC and BCC route it anywhere.
`ish publishers add` writes a publisher's kinds to the table `publishers`; every worker reads that table every few
seconds. A publisher that is not in it (made before the table was, or by hand) is held to the broker's own rule: the
broker has checked its user and its key, and `admission` checks that the key leads to the queue.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from contracts.logs import get_logger
from contracts.service_errors import postgres_in_words

REFRESH_SECONDS = 2.0
"""How old the knowledge is at the most, while PostgreSQL answers; what was known is kept while it does not."""

_READ = "select name, routing_keys from publishers"


class Kinds(Protocol):
    """Who may send what."""

    def of(self, publisher: str) -> frozenset[str] | None:
        """Routing keys that a publisher may use; None when nothing is recorded of it.

        Args:
            publisher: Its RabbitMQ user, as the broker has checked it.
        """


class PublisherKinds:
    """The table `publishers`, as it was a moment ago.

    Args:
        database: asyncpg pool.
    """

    def __init__(self, database: Any) -> None:
        self._database = database
        self._kinds: Mapping[str, frozenset[str]] = {}
        self._told = False

    def of(self, publisher: str) -> frozenset[str] | None:
        """See `Kinds.of`.

        Args:
            publisher: Its RabbitMQ user.
        """
        return self._kinds.get(publisher)

    async def refresh(self) -> bool:
        """Read the table once.

        Returns:
            False when PostgreSQL is away; what was known is kept.
        """
        try:
            async with asyncio.timeout(10):
                rows = await self._database.fetch(_READ)
        except Exception as error:  # noqa: BLE001  # whatever it met, what was known is kept and the table read again
            if not self._told:
                get_logger().warning("postgres_unreachable", error=postgres_in_words(error), doing="publishers")
            self._told = True
            return False
        self._kinds = {row["name"]: frozenset(row["routing_keys"]) for row in rows}
        self._told = False
        return True

    async def run(self) -> None:
        """Read the table again and again, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self.refresh()
