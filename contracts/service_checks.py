"""Refuses, at the start of a process, services that it could never use; one that is away is no matter here.

A refused certificate or login stays refused, and tables that are missing do not come by themselves: a process that waited
for them would wait for ever, and look alive. Tables that are newer than this program are no fault: they are brought up to
date first, and processes after them.
"""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

import asyncpg

from contracts import schema
from contracts.amqp import broker
from contracts.database_errors import tables_missing, told
from contracts.database_sessions import check_pooler
from contracts.plain_text import plain
from contracts.redis_client import open_redis
from contracts.service_errors import ServiceTrouble, is_of_trust, sentence
from contracts.settings import Settings

_SECONDS = 3.0
_LASTING = ("28", "3D000")
"""How SQLSTATEs of a refused login and of a missing database begin."""


async def check_services(settings: Settings) -> None:
    """Look at the services of this process, all at once.

    Args:
        settings: With their addresses.

    Raises:
        ServiceTrouble: TLS with one of them cannot be, such as with a certificate that is not trusted; or PostgreSQL
            refuses the login, or lacks the database or its tables.
        UnsuitablePooler: See there.
    """
    checks = (
        _check_broker(settings.amqp_url),
        _check_redis(settings.redis_url),
        _check_postgres(settings.postgres_url),
    )
    for found in await asyncio.gather(*checks, return_exceptions=True):
        if isinstance(found, BaseException):
            raise found


async def _check_broker(url: str) -> None:
    if urlsplit(url).scheme != "amqps":
        return
    try:
        async with asyncio.timeout(_SECONDS):
            connection = await broker.connect(url, name="ish start")
        with suppress(Exception):
            async with asyncio.timeout(_SECONDS):
                await connection.close()
    except (broker.BrokerAway, TimeoutError) as error:
        if isinstance(error, ServiceTrouble) and is_of_trust(url, error):
            raise


async def _check_postgres(url: str) -> None:
    await check_pooler(url)
    try:
        connection = await asyncpg.connect(url, timeout=_SECONDS, command_timeout=_SECONDS)
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "").startswith(_LASTING):
            raise ServiceTrouble(told(url, error, role="its role")) from error
        return
    except Exception:  # noqa: BLE001  # away: whoever needs the server meets it again and tells it
        return
    try:
        revision = await connection.fetchval("select max(version_num) from alembic_version")
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as error:
        raise ServiceTrouble(tables_missing(url, plain(str(error)))) from error
    except Exception:  # noqa: BLE001  # as above
        return
    finally:
        connection.terminate()
    if (revision or "") < schema.newest():
        raise ServiceTrouble(tables_missing(url, f"revision {revision}, and this program needs {schema.newest()}"))


async def _check_redis(url: str) -> None:
    if urlsplit(url).scheme != "rediss":
        return
    try:
        async with asyncio.timeout(_SECONDS), open_redis(url) as redis:
            await redis.ping()
    except Exception as error:  # whatever it is, whoever needs the server meets it again and tells it
        if is_of_trust(url, error):
            raise ServiceTrouble(sentence("Redis", url, error, setting="ISH_REDIS_URL")) from error
