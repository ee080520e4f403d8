"""Opens what the AI pool's handler needs: providers, limits, cache, conversations and token streams."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from contracts.restarting import restarting
from contracts.seal import Seal
from contracts.settings import Settings, secret_from_environment, stop
from workers.ai.answers.cache import open_cache
from workers.ai.answers.checkpoint import open_kept_answers
from workers.ai.answers.streaming import open_token_streams
from workers.ai.configuration import ConfigurationError
from workers.ai.failover import Asking
from workers.ai.handler import build
from workers.ai.limits import RetryBudget, open_fleet
from workers.ai.live_configuration import LiveConfiguration
from workers.ai.providers.client import open_client
from workers.ai.routing.router import Router
from workers.handler import Handler
from workers.store.ai_models import record_models
from workers.store.conversations import history_from
from workers.task_cancellation import end


@asynccontextmanager
async def open_handler(settings: Settings, database: Any) -> AsyncIterator[Handler]:
    """The handler of `ai.send`, with everything around it at work.

    Args:
        settings: `providers_file` says whom to ask; a file that cannot be used ends the process with one line.
        database: asyncpg pool.
    """
    try:
        live = LiveConfiguration(settings.providers_file, secret_from_environment=secret_from_environment)
    except ConfigurationError as error:
        stop(str(error))
    seal = Seal.of(settings.postgres_url)
    async with (
        open_client() as client,
        open_fleet(settings.redis_url) as fleet,
        open_cache(settings.redis_url, keep_seconds=settings.result_cache_seconds, seal=seal) as cache,
        open_kept_answers(settings.redis_url, seal=seal) as kept,
        open_token_streams(settings.redis_url) as streams,
        asyncio.TaskGroup() as group,
    ):
        tasks = [
            group.create_task(restarting("providers file", live.run)),
            group.create_task(restarting("list of models", partial(record_models, database, live))),
        ]
        asking = Asking(
            configuration=lambda: live.current,
            client=client,
            router=Router(),
            fleet=fleet,
            budget=RetryBudget(settings.ai_retry_budget),
            calls_per_command=settings.ai_calls_per_command,
        )
        try:
            yield build(asking, history=history_from(database), cache=cache, kept=kept, streams=streams)
        finally:
            await end(tasks)
