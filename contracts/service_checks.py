"""Refuses, at the start of a process, services that it could never use; one that is away is no matter here.

A refused certificate stays refused, so a process that waited for it would wait for ever, and look alive.
"""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from contracts import broker
from contracts.database_sessions import check_pooler
from contracts.redis_client import open_redis
from contracts.service_errors import ServiceTrouble, is_of_trust, sentence
from contracts.settings import Settings

_SECONDS = 3.0


async def check_services(settings: Settings) -> None:
    """Look at the services of this process, all at once.

    Args:
        settings: With their addresses.

    Raises:
        ServiceTrouble: TLS with one of them cannot be, such as with a certificate that is not trusted.
        UnsuitablePooler: See there.
    """
    checks = (_check_broker(settings.amqp_url), _check_redis(settings.redis_url), check_pooler(settings.postgres_url))
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


async def _check_redis(url: str) -> None:
    if urlsplit(url).scheme != "rediss":
        return
    try:
        async with asyncio.timeout(_SECONDS), open_redis(url) as redis:
            await redis.ping()
    except Exception as error:  # whatever it is, whoever needs the server meets it again and tells it
        if is_of_trust(url, error):
            raise ServiceTrouble(sentence("Redis", url, error, setting="ISH_REDIS_URL")) from error
