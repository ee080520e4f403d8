"""PostgreSQL as the gateway uses it: a small pool that no request ever waits for longer than it can afford.

A server that is frozen, rather than gone, answers neither queries nor asyncpg's cancel requests, and a pool waits for
the cancel before it takes a connection back. So a connection whose query ran out of time is dropped at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg

from contracts.database import AWAY, SERVER_SETTINGS, is_of_schema, is_passing
from contracts.database_sessions import Sessions
from contracts.logs import get_logger
from contracts.service_errors import note_place, postgres_in_words

Answer = TypeVar("Answer")

_CLOSE_SECONDS = 2.0
_SETTINGS = {
    **SERVER_SETTINGS,
    "timezone": "UTC",  # times inside JSON that PostgreSQL makes
    "statement_timeout": "5000",
    "lock_timeout": "2000",
}
_AWAY = (asyncpg.PostgresError, *AWAY)


class DatabaseAway(Exception):
    """PostgreSQL did not answer in time, or cannot be used now. A write may have happened."""


class DataRefused(Exception):
    """PostgreSQL answered, and cannot store what it was given."""


class Database:
    """The gateway's connections to PostgreSQL; opened when first needed, so that it need not be there at the start.

    Args:
        url: postgresql:// URL of the gateway's role.
        connections: The most that are open at once.
    """

    def __init__(self, url: str, *, connections: int) -> None:
        self._url = url
        self._connections = connections
        self._pool: asyncpg.Pool[Any] | None = None
        self._reachable = True

    async def open(self) -> None:
        """Make the pool; connects to nothing yet."""
        note_place("PostgreSQL", self._url)
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._connections,
            timeout=5,
            command_timeout=30,
            reset=_nothing,  # no request leaves anything behind that a query of its own would have to clear
            init=Sessions(self._url, _SETTINGS).prepare,
            server_settings={"application_name": "ish gateway"},
        )

    async def close(self) -> None:
        """Close the connections, by force when the server does not answer."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        with suppress(*_AWAY):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await pool.close()

    async def run(self, work: Callable[[Any], Awaitable[Answer]], *, timeout_seconds: float) -> Answer:
        """Do something on a connection.

        Args:
            work: Gets the connection; must leave no transaction open.
            timeout_seconds: For all of it: a free connection, connecting if need be, and the work.

        Raises:
            DatabaseAway: It was not done in time, or the server cannot be used.
            DataRefused: Something in it can never be stored.
        """
        if self._pool is None:
            raise DatabaseAway("the pool is closed")
        connection: Any = None
        try:
            async with asyncio.timeout(timeout_seconds):
                connection = await self._pool.acquire()
                answer = await work(connection)
        except BaseException as error:
            broken = not isinstance(error, asyncpg.PostgresError)
            if connection is not None and (broken or connection.is_in_transaction()):
                connection.terminate()
            if _is_of_data(error):
                raise DataRefused(type(error).__name__) from error
            if isinstance(error, Exception):  # whatever the driver raises, the connection is done with
                self._note(error)
                raise DatabaseAway(repr(error)) from error
            raise
        finally:
            if connection is not None:
                with suppress(Exception):  # the answer is there, or the error told
                    await self._pool.release(connection)
        self._note(None)
        return answer

    async def fetch(self, query: str, *arguments: Any, timeout_seconds: float) -> list[Any]:
        """Rows of one query; see `run`."""
        return await self.run(lambda one: one.fetch(query, *arguments), timeout_seconds=timeout_seconds)

    async def fetchrow(self, query: str, *arguments: Any, timeout_seconds: float) -> Any:
        """First row of one query, or None; see `run`."""
        return await self.run(lambda one: one.fetchrow(query, *arguments), timeout_seconds=timeout_seconds)

    def _note(self, error: BaseException | None) -> None:
        """One line when it goes, one when it is back."""
        if (error is None) is self._reachable:
            return
        self._reachable = error is None
        if error is None:
            get_logger().info("postgres_reachable")
        else:
            get_logger().warning("postgres_unreachable", error=postgres_in_words(error))


def _is_of_data(error: BaseException) -> bool:
    """Whether what was given is to blame: PostgreSQL answered, and its answer says nothing of itself or of the schema."""
    if isinstance(error, asyncpg.PostgresError):
        return not (is_passing(error) or is_of_schema(error))
    return isinstance(error, ValueError)  # asyncpg's own complaints of values are ValueErrors


async def _nothing(connection: Any) -> None:
    del connection
