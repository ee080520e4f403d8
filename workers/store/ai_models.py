"""Keeps the table `ai_models` true: what the configuration of AI workers offers, written when it changes and each minute.

Every AI worker writes its own; they are configured alike. What none of them has written for a day is deleted.
"""

import asyncio
from typing import Any, Protocol

import asyncpg
import orjson

from contracts.database import AWAY
from contracts.logs import get_logger
from contracts.service_errors import postgres_in_words
from workers.ai.configuration import Alias, Configuration

_CHECK_SECONDS = 1.0
_REFRESH_SECONDS = 60.0
_AGAIN_SECONDS = 5.0
_TIMEOUT_SECONDS = 10.0

_UPSERT = """
insert into ai_models (name, kind, provider, context_tokens, capabilities, policy, models)
select name, kind, provider, context_tokens, array(select jsonb_array_elements_text(capabilities)), policy,
  array(select jsonb_array_elements_text(models))
from jsonb_to_recordset($1::jsonb) as t(name text, kind text, provider text, context_tokens bigint, capabilities jsonb,
  policy text, models jsonb)
order by name
on conflict (name) do update set kind = excluded.kind, provider = excluded.provider,
  context_tokens = excluded.context_tokens, capabilities = excluded.capabilities, policy = excluded.policy,
  models = excluded.models, seen_at = clock_timestamp()
"""
_FORGET = "delete from ai_models where seen_at < clock_timestamp() - interval '1 day'"


class Live(Protocol):
    """A configuration that may change."""

    @property
    def current(self) -> Configuration:
        """As it is now."""


async def record_models(database: Any, live: Live) -> None:
    """Record until cancelled.

    Args:
        database: asyncpg pool.
        live: What is configured.
    """
    clock = asyncio.get_running_loop().time
    recorded: Configuration | None = None
    due_at, told = 0.0, False
    while True:
        configuration = live.current
        if configuration is not recorded or clock() >= due_at:
            try:
                await _record(database, configuration)
            except (asyncpg.PostgresError, *AWAY) as error:
                if not told:
                    get_logger().warning("postgres_unreachable", error=postgres_in_words(error), doing="list of models")
                told, due_at = True, clock() + _AGAIN_SECONDS
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            recorded, told, due_at = configuration, False, clock() + _REFRESH_SECONDS
        await asyncio.sleep(_CHECK_SECONDS)


async def _record(database: Any, configuration: Configuration) -> None:
    rows = rows_of(configuration)
    async with asyncio.timeout(_TIMEOUT_SECONDS), database.acquire() as connection:
        await connection.execute(_UPSERT, orjson.dumps(rows).decode())
        await connection.execute(_FORGET)


def rows_of(configuration: Configuration) -> list[dict[str, Any]]:
    """What is offered, one row a name; an alias hides a model of the same name, as it does for questions.

    Args:
        configuration: What there is.
    """
    models = {
        target.name: {
            "name": target.name,
            "kind": "model",
            "provider": target.provider_name,
            "context_tokens": target.model.context_tokens,
            "capabilities": sorted(target.model.capabilities),
            "policy": None,
            "models": [],
        }
        for target in configuration.targets
    }
    aliases = {name: _alias(name, alias, configuration) for name, alias in configuration.aliases.items()}
    return list({**models, **aliases}.values())


def _alias(name: str, alias: Alias, configuration: Configuration) -> dict[str, Any]:
    by_name = {target.name: target for target in configuration.targets}
    able = [target.name for target in configuration.targets if alias.capability in target.model.capabilities]
    chosen = [by_name[one] for one in dict.fromkeys((*alias.models, *able)) if one in by_name]
    common = [set(target.model.capabilities) for target in chosen]
    rooms = [target.model.context_tokens for target in chosen if target.model.context_tokens is not None]
    return {
        "name": name,
        "kind": "alias",
        "provider": None,
        # what holds whichever of them answers
        "context_tokens": min(rooms) if chosen and len(rooms) == len(chosen) else None,
        "capabilities": sorted(set.intersection(*common)) if common else [],
        "policy": alias.policy,
        "models": [target.name for target in chosen],
    }
