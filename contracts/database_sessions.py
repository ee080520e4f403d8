"""Gives each connection to PostgreSQL its settings, and refuses a pooler that hands every transaction to another one.

Settings are sent with `set_config` once a connection is open, since PgBouncer refuses them as start-up parameters. They,
advisory locks and prepared statements belong to a session, so behind PgBouncer `pool_mode = session` is needed. A pooler is
known by the process that it names at the start, which is none of PostgreSQL's; its mode by whether two connections that are
open at once are given one process.
Source: https://www.pgbouncer.org/features.html (what each pool mode breaks).
"""

from collections.abc import Mapping
from typing import Any

import asyncpg

from contracts.service_errors import ServiceTrouble, is_of_trust, place_of, sentence, user_of

_PROBE_SECONDS = 3.0
_ROUNDS = 5
_NOT_OURS = ("42P05", "26000")
"""SQLSTATEs of a prepared statement that is there though we never made it, or gone though we did."""
_PREPARE = """
select pg_backend_pid(), count(set_config(name, value, false)) from unnest($1::text[], $2::text[]) as one(name, value)
"""


class UnsuitablePooler(asyncpg.InterfaceError):  # type: ignore[misc]  # asyncpg has no types
    """Between this process and PostgreSQL is a pooler that shares sessions; the message is one line with what to do."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"PostgreSQL at {place_of(url)} as {user_of(url)}: a pooler there hands each transaction to another session; "
            "set pool_mode = session in PgBouncer for this database, or name PostgreSQL itself in ISH_POSTGRES_URL"
        )


class Sessions:
    """Prepares the connections of one pool.

    Args:
        url: postgresql:// URL of the pool.
        settings: Of every connection, by name.
    """

    def __init__(self, url: str, settings: Mapping[str, str]) -> None:
        self._url = url
        self._settings = dict(settings)
        self._trusted = False

    async def prepare(self, connection: Any) -> None:
        """Give a new connection its settings.

        Args:
            connection: asyncpg's.

        Raises:
            UnsuitablePooler: See there.
        """
        try:
            pid = await self._set(connection)
            if pid != connection.get_server_pid() and not self._trusted:
                await refuse_shared(self._url, connection)
                self._trusted = True
        except BaseException:
            connection.terminate()  # a server that is frozen would not answer a farewell
            raise

    async def _set(self, connection: Any) -> int:
        try:
            row = await connection.fetchrow(_PREPARE, list(self._settings), list(self._settings.values()))
        except asyncpg.PostgresError as error:
            if error.sqlstate in _NOT_OURS:
                raise UnsuitablePooler(self._url) from error
            raise
        return int(row[0])


async def check_pooler(url: str) -> None:
    """Refuse an unsuitable pooler at the start of a process; a server that is away is no matter here.

    Args:
        url: postgresql:// URL of this process.

    Raises:
        UnsuitablePooler: See there.
        ServiceTrouble: Its certificate is refused, or TLS with it cannot be.
    """
    try:
        connection = await asyncpg.connect(url, timeout=_PROBE_SECONDS, command_timeout=_PROBE_SECONDS)
    except Exception as error:  # whatever it is, whoever needs the server meets it again and tells it
        if is_of_trust(url, error) or isinstance(error, asyncpg.ClientConfigurationError):
            raise ServiceTrouble(sentence("PostgreSQL", url, error, setting="ISH_POSTGRES_URL")) from error
        return
    try:
        if await _backend(url, connection) != connection.get_server_pid():
            await refuse_shared(url, connection)
    except UnsuitablePooler:
        raise
    except Exception:  # noqa: BLE001  # as above: this is a look ahead, and nobody waits for it
        return
    finally:
        connection.terminate()


async def refuse_shared(url: str, connection: Any) -> None:
    """Compare the processes behind a pooler's connection and another one that is open at the same time.

    Args:
        url: postgresql:// URL of both.
        connection: An open one.

    Raises:
        UnsuitablePooler: They share a process, or one of them changes it.
    """
    try:
        other = await asyncpg.connect(url, timeout=_PROBE_SECONDS, command_timeout=_PROBE_SECONDS)
    except (asyncpg.PostgresError, OSError, TimeoutError):
        return  # no second session is to be had while the first is open: it is kept for its client
    try:
        pids: tuple[set[int], set[int]] = (set(), set())
        for _ in range(_ROUNDS):
            for one, seen in zip((connection, other), pids, strict=True):
                seen.add(await _backend(url, one))
    except TimeoutError:
        return  # as above: PgBouncer lets a client in before it has a session for it
    finally:
        other.terminate()
    if pids[0] & pids[1] or len(pids[0]) > 1 or len(pids[1]) > 1:
        raise UnsuitablePooler(url)


async def _backend(url: str, connection: Any) -> int:
    try:
        return int(await connection.fetchval("select pg_backend_pid()"))
    except asyncpg.PostgresError as error:
        if error.sqlstate in _NOT_OURS:
            raise UnsuitablePooler(url) from error
        raise
