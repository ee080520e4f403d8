"""What is on record, read from outside: PostgreSQL as operators see it, and the broker's queues."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import aio_pika
import asyncpg
import httpx

from contracts.topology import topology

POLL_SECONDS = 0.05
TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired", "indeterminate"})

_COMMANDS = """
select id::text, state, attempt, crashes, alone, repeatable, error_code, result, holder::text, republished
from commands where publisher = $1
"""


async def until(what: str, condition: Callable[[], bool | Awaitable[bool]], *, seconds: float = 60) -> None:
    """Wait until something is so; fails with what it waited for."""
    deadline = time.monotonic() + seconds
    while True:
        so = condition()
        if await so if inspect.isawaitable(so) else so:
            return
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(POLL_SECONDS)


class Records:
    """PostgreSQL, read as the operators' role."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def rows(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        """Read rows; each time on a connection of its own, so that a restart of PostgreSQL is nothing special."""
        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close(timeout=10)

    async def commands(self, publisher: str) -> dict[str, dict[str, Any]]:
        """A publisher's commands by id; two rows of one command fail the test."""
        rows = await self.rows(_COMMANDS, publisher)
        by_id = {row["id"]: row for row in rows}
        assert len(by_id) == len(rows), "a command has two rows"
        return by_id

    async def finished(self, publisher: str, ids: Collection[str]) -> bool:
        """Whether all of these have a terminal row."""
        return not await self.unfinished(publisher, ids)

    async def unfinished(self, publisher: str, ids: Collection[str]) -> dict[str, dict[str, Any] | None]:
        """Those of these that have no terminal row, with the row that they have."""
        commands = await self.commands(publisher)
        return {one: row for one in ids if (row := commands.get(one)) is None or row["state"] not in TERMINAL}

    async def dead_letters(self, publisher: str | None) -> list[dict[str, Any]]:
        """A publisher's dead letters, or those of nobody, oldest first."""
        return await self.rows(
            "select reason, message, message_id, type, queue, body from dead_letters"
            " where publisher is not distinct from $1 order by seq",
            publisher,
        )

    async def attempts(self, publisher: str, id_: str) -> list[dict[str, Any]]:
        """What the ledger says of each try of a command."""
        return await self.rows(
            "select attempt, outcome, error_code, target from attempts"
            " where publisher = $1 and id = $2::text::uuid order by attempt",
            publisher,
            id_,
        )

    async def spent(self, publisher: str) -> dict[str, tuple[int, int, float]]:
        """Tokens in and out and cost of each command over all its tries, as the ledger has them."""
        rows = await self.rows(
            "select id::text, sum(tokens_in)::bigint as tokens_in, sum(tokens_out)::bigint as tokens_out,"
            " sum(cost_usd)::float8 as cost_usd from attempts where publisher = $1 and tokens_in is not null group by 1",
            publisher,
        )
        return {row["id"]: (row["tokens_in"], row["tokens_out"], row["cost_usd"]) for row in rows}


class Queues:
    """The broker's queues, asked as the administrator."""

    def __init__(self, amqp_url: str, management_url: str) -> None:
        self._amqp_url = amqp_url
        parts = urlsplit(management_url)
        self._api = f"http://{parts.hostname}:{parts.port}/api"
        self._login = (parts.username or "", parts.password or "")

    async def api(self, method: str, *path: str, body: object = None) -> Any:
        """Call the management API; path parts are quoted."""
        url = "/".join([self._api, *(quote(part, safe="") for part in path)])
        async with httpx.AsyncClient(auth=self._login, timeout=30, trust_env=False) as client:
            answer = await client.request(method, url, json=body)
        assert answer.is_success, f"{method} {url}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def ready(self, names: Sequence[str] | None = None) -> dict[str, int]:
        """Messages that wait in queues right now; all of ours but the wait queues' when none is named."""
        connection = await aio_pika.connect(self._amqp_url, timeout=10)
        async with connection:
            channel = await connection.channel()
            counts: dict[str, int] = {}
            for name in names if names is not None else self.names():
                queue = await channel.declare_queue(name, passive=True)
                counts[name] = queue.declaration_result.message_count or 0
        return counts

    async def empty(self) -> bool:
        """Whether nothing waits anywhere."""
        return not any((await self.ready()).values())

    async def unacked(self, name: str) -> int:
        """Deliveries that a consumer holds, as of the broker's last statistics (a few seconds old)."""
        return int((await self.api("GET", "queues", "/", name)).get("messages_unacknowledged", 0))

    async def purge(self) -> None:
        """Drop whatever earlier tests left."""
        connection = await aio_pika.connect(self._amqp_url, timeout=10)
        async with connection:
            channel = await connection.channel()
            for name in self.names():
                await (await channel.get_queue(name, ensure=False)).purge()

    async def delete(self, name: str) -> None:
        """Delete a queue with what it holds."""
        connection = await aio_pika.connect(self._amqp_url, timeout=10)
        async with connection:
            channel = await connection.channel()
            await channel.queue_delete(name)

    @staticmethod
    def names() -> list[str]:
        """Every queue of the topology."""
        return [queue.name for queue in topology().queues]
