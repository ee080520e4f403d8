"""The models at `/v1/models`: what AI workers are configured for, as they record it."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from ops.stack.session import Session
from tests.integration.gateway_process import (
    database,
    eventually,
)
from workers.ai.configuration import Configuration, load
from workers.store.ai_models import record_models

_PROVIDERS = """
[providers.zai]
dialect = "openai"
base_url = "http://127.0.0.1:1/v1"
[providers.zai.models.glm-4-flash]
context_tokens = 128000
capabilities = ["json", "chat"]
[providers.local]
dialect = "openai"
base_url = "http://127.0.0.1:1/v1"
[providers.local.models.small]
context_tokens = 2048
capabilities = ["chat"]
[aliases.default]
policy = "priority"
models = ["zai/glm-4-flash", "local/small"]
"""


class _Live:
    def __init__(self, configuration: Configuration) -> None:
        self.current = configuration


async def test_models_are_what_workers_are_configured_for(
    services: Session, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(_PROVIDERS)
    live = _Live(load(file, secret_from_environment=lambda _: None))
    async with database(services, "ish_owner") as connection:
        await connection.execute("delete from ai_models")
        await connection.execute(
            "insert into ai_models (name, kind, seen_at) values ('long/gone', 'model', now() - interval '2 days')"
        )
    async with asyncpg.create_pool(services.postgres_url("ish_worker"), min_size=0, max_size=1) as pool:
        recording = asyncio.ensure_future(record_models(pool, live))

        async def recorded() -> bool:
            return "default" in [one["id"] for one in await _models(client)]

        await eventually(recorded)
        listed = await _models(client)
        default = (await client.get("/v1/models/default")).json()
        full = (await client.get("/v1/models/zai/glm-4-flash")).json()
        bare = (await client.get("/v1/models/glm-4-flash")).json()
        live.current = Configuration(targets=live.current.targets[:1])

        async def reloaded() -> bool:
            async with database(services, "ish_owner") as connection:
                seen = dict(await connection.fetch("select name, seen_at from ai_models"))
            return bool(seen["zai/glm-4-flash"] - seen["default"] > timedelta(seconds=0.5))

        await eventually(reloaded)
        async with database(services, "ish_owner") as connection:
            await connection.execute(
                "update ai_models set seen_at = seen_at - interval '4 min' where name <> 'zai/glm-4-flash'"
            )
        left = await _models(client)
        recording.cancel()
        await asyncio.wait({recording})

    async with database(services, "ish_owner") as connection:
        assert not await connection.fetchval("select count(*) from ai_models where name = 'long/gone'")
    assert [one["id"] for one in listed] == ["default", "local/small", "zai/glm-4-flash"]
    assert {one["object"] for one in listed} == {"model"}
    assert default["models"] == ["zai/glm-4-flash", "local/small"]
    assert (default["context_tokens"], default["capabilities"]) == (2048, ["chat"])
    assert full == bare
    assert (full["owned_by"], full["context_tokens"], full["capabilities"]) == ("zai", 128000, ["chat", "json"])
    assert [one["id"] for one in left] == ["zai/glm-4-flash"]


async def _models(client: httpx.AsyncClient) -> list[Any]:
    listed: list[Any] = (await client.get("/v1/models")).json()["data"]
    return listed
