"""Opens PostgreSQL for operators' commands; whatever fails there becomes one line that says where and what to do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from contracts.database import AWAY
from contracts.database_errors import told
from contracts.database_sessions import Sessions, UnsuitablePooler
from contracts.service_errors import ServiceTrouble

_CONNECT_SECONDS = 10
_STATEMENT_SECONDS = 10


class DatabaseTrouble(ServiceTrouble):
    """PostgreSQL cannot be reached, refuses the login, or cannot do what a command asks of it."""


@asynccontextmanager
async def connected(postgres_url: str) -> AsyncIterator[Any]:
    """A connection for the time of the block.

    Args:
        postgres_url: As the role `ish_ops`.

    Raises:
        DatabaseTrouble: See there.
    """
    try:
        connection = await asyncpg.connect(postgres_url, timeout=_CONNECT_SECONDS, command_timeout=_STATEMENT_SECONDS)
    except (asyncpg.PostgresError, *AWAY, ValueError) as error:
        raise DatabaseTrouble(told(postgres_url, error, role="the role ish_ops")) from error
    try:
        await Sessions(postgres_url, {}).prepare(connection)
        yield connection
    except UnsuitablePooler as error:
        raise DatabaseTrouble(str(error)) from error
    except (asyncpg.PostgresError, *AWAY) as error:
        raise DatabaseTrouble(told(postgres_url, error, role="the role ish_ops")) from error
    finally:
        await _close(connection)


async def _close(connection: Any) -> None:
    try:
        await connection.close(timeout=_CONNECT_SECONDS)
    except (asyncpg.PostgresError, *AWAY):
        connection.terminate()
