"""What the gateway consists of, put together in one place, and its life from opening to closing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from contracts.amqp.publisher import Publisher
from contracts.restarting import restarting
from contracts.seal import Seal
from contracts.settings import Settings
from contracts.topology import reply_queue
from gateway import PUBLISHER
from gateway.services.api_keys import KeyRing
from gateway.services.appending import Uploads
from gateway.services.cache import ResultCache
from gateway.services.database import Database
from gateway.services.idempotency import Identities
from gateway.services.progress import Progress
from gateway.services.recorder import Recorder
from gateway.services.reply_consumer import Replies
from gateway.services.result_waiters import Waiting
from gateway.services.token_reader import TokenReader

_PROBE = reply_queue(f"{PUBLISHER}.probe")
"""An exchange of the gateway's own, among the names that its user may declare and write to; bound to nothing."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that routes use; none of it connects before `running`."""

    settings: Settings
    database: Database
    keys: KeyRing
    identities: Identities
    recorder: Recorder
    waiting: Waiting
    replies: Replies
    publisher: Publisher
    cache: ResultCache
    streams: TokenReader
    progress: Progress
    uploads: Uploads

    @classmethod
    def of(cls, settings: Settings) -> "Parts":
        """Build the parts of one gateway.

        Args:
            settings: With `amqp_url` and `postgres_url`.
        """
        database = Database(settings.postgres_url, connections=settings.postgres_pool_size)
        waiting = Waiting(database)
        return cls(
            settings=settings,
            database=database,
            keys=KeyRing(database, cache_seconds=settings.key_cache_seconds, grace_seconds=settings.key_grace_seconds),
            identities=Identities(database),
            recorder=Recorder(database),
            waiting=waiting,
            replies=Replies(settings.amqp_url, waiting),
            publisher=Publisher(
                settings.amqp_url, name="gateway", timeout_seconds=settings.publish_timeout_seconds, probe=_PROBE
            ),
            cache=ResultCache(
                settings.redis_url, keep_seconds=settings.result_cache_seconds, seal=Seal.of(settings.postgres_url)
            ),
            streams=TokenReader(settings.redis_url),
            progress=Progress(database, lease_seconds=settings.lease_seconds),
            uploads=Uploads(database, connections=settings.postgres_pool_size, limit_bytes=settings.upload_limit_bytes),
        )


@asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """Keep the parts at work; one that fails is started over, and one that keeps failing ends the block.

    RabbitMQ, PostgreSQL and Redis need not be there: each is connected to when it comes.

    Args:
        parts: From `Parts.of`.
    """
    await parts.database.open()
    try:
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(restarting(name, run, give_up_seconds=parts.settings.watchdog_seconds))
                for name, run in (
                    ("publisher", parts.publisher.run),
                    ("replies", parts.replies.run),
                    ("recorder", parts.recorder.run),
                    ("identities", parts.identities.run),
                    ("waiting", parts.waiting.run),
                    ("token reader", parts.streams.run),
                    ("progress", parts.progress.run),
                )
            ]
            try:
                yield
            finally:
                parts.waiting.stop()
                for task in work:
                    task.cancel()
        await parts.recorder.flush()
    finally:
        await parts.streams.close()
        await parts.cache.close()
        await parts.database.close()
