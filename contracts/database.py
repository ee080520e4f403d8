"""Opens PostgreSQL pools, and says of an error whether waiting helps.

Planner settings are fixed here since every hot statement looks a small array of keys up in large tables: a plan made
while the tables were empty must not read them whole a million rows later. The statements help: what they read of a table
stands in a `lateral (… offset 0)`, which PostgreSQL runs for each key, by its index.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from contracts.database_sessions import Sessions
from contracts.service_errors import note_place

SERVER_SETTINGS = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_material": "off",
    "statement_timeout": "20000",
    "lock_timeout": "10000",
    "idle_in_transaction_session_timeout": "10000",
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "client_connection_check_interval": "500",
}
"""A client that is frozen or cut off in a transaction must not hold its locks for long."""

AWAY = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
"""Raised by asyncpg beside PostgresError when the server cannot be reached or went away."""

_PASSING_CLASSES = ("08", "40", "53", "57", "58", "55", "25")
"""SQLSTATE classes: connection, rollback, resources, operator intervention, system, object state, idle in transaction."""
_DATA_CLASSES = ("22", "23", "54")
"""SQLSTATE classes: data exception, integrity violation, program limit exceeded."""
_SCHEMA_CLASS = "42"
"""SQLSTATE class: something is missing, not allowed or of another type. The statements are constants, so no row is to blame."""
_NO_PARTITION = "no partition of relation"


class ConnectionLost(Exception):
    """There is no connection to work on, or the one at work broke: whatever was raised, no row is to blame."""


async def open_pool(url: str, *, size: int, name: str) -> Any:
    """Open a pool; it connects on first use, so that a process can start while PostgreSQL is away.

    Args:
        url: postgresql:// URL of this process's role.
        size: Connections at the most.
        name: application_name.
    """
    note_place("PostgreSQL", url)
    return await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size,
        timeout=5,
        command_timeout=30,
        reset=_nothing,  # asyncpg would send a statement at each release; nothing here leaves anything to clear
        max_inactive_connection_lifetime=300,
        init=Sessions(url, SERVER_SETTINGS).prepare,
        server_settings={"application_name": name},
    )


async def _nothing(_: Any) -> None:
    """A connection is given back as it is."""


@asynccontextmanager
async def acquired(database: Any) -> AsyncIterator[Any]:
    """A connection of the pool for the time of the block; what goes wrong with the connection itself is told apart.

    A connection on which something unforeseen happened, or that was left in a transaction, is not used again.

    Args:
        database: asyncpg pool.

    Raises:
        ConnectionLost: There is none to be had, or it broke in the block.
    """
    try:
        connection = await database.acquire()
    except Exception as error:
        raise ConnectionLost(repr(error)) from error
    try:
        yield connection
    except BaseException as error:
        lost = isinstance(error, Exception) and _is_closed(connection)
        # an error of PostgreSQL's, or of a value, leaves the connection as it was; of anything else nobody knows
        if not isinstance(error, asyncpg.PostgresError | ValueError):
            with suppress(asyncpg.InterfaceError):
                connection.terminate()
        if lost:
            raise ConnectionLost(repr(error)) from error
        raise
    finally:
        if not _is_closed(connection) and connection.is_in_transaction():
            connection.terminate()
        with suppress(Exception):
            await database.release(connection)


def _is_closed(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # the pool has taken it back, since it broke
        return True


def is_passing(error: BaseException) -> bool:
    """Whether the same statement may succeed later, unchanged: PostgreSQL is away, stopping, full or busy.

    Args:
        error: What a statement raised.
    """
    if isinstance(error, ConnectionLost | asyncpg.InvalidCachedStatementError):
        return True
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _PASSING_CLASSES
    if isinstance(error, ValueError):  # asyncpg's complaints of values are InterfaceErrors too
        return False
    return isinstance(error, AWAY) or _is_closed_transport(error)


def is_of_schema(error: BaseException) -> bool:
    """Whether the schema does not fit, so that no row is to blame: a right or a partition is missing, or a migration.

    Args:
        error: What a statement raised.
    """
    if isinstance(error, asyncpg.CheckViolationError):
        return error.constraint_name is None and _NO_PARTITION in str(error)
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] == _SCHEMA_CLASS


def is_data_error(error: BaseException) -> bool:
    """Whether a value is to blame: one bad row must fail alone, and not its whole batch.

    Args:
        error: What a statement raised.
    """
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _DATA_CLASSES and not is_of_schema(error)
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)


def _is_closed_transport(error: BaseException) -> bool:
    """Uvloop's error for a socket whose other side accepted and closed at once; it is no OSError."""
    return isinstance(error, RuntimeError) and "TCPTransport" in str(error)
