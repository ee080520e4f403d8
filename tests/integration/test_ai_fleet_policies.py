"""Policies at work on real sockets: which of two providers the calls reach, as the provider counted them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ops.simulators.provider.ledger import Ledger
from ops.simulators.provider.scripts import Match, Script, Scripts
from ops.simulators.provider.server import running
from workers.ai.configuration import Configuration, load
from workers.ai.limits import Fleet, Pass, Served, open_fleet
from workers.ai.providers.call import Question, ask
from workers.ai.providers.client import open_client
from workers.ai.routing.router import Router

PROVIDERS = """
[providers.a]
dialect = "openai"
base_url = "{address}"
[providers.a.models.model-a]
[providers.b]
dialect = "openai"
base_url = "{address}"
[providers.b.models.model-b]
[aliases.weighted]
policy = "weighted"
models = ["a/model-a", "b/model-b"]
[aliases.fastest]
policy = "fastest"
models = ["a/model-a", "b/model-b"]
"""
QUESTION = Question(
    messages=[{"role": "user", "content": "why is the sky blue"}], options={}, idempotency_key="", timeout_seconds=60
)


@dataclass(frozen=True, slots=True)
class Stand:
    """A router before two models, model-a and model-b, of one scripted provider."""

    configuration: Configuration
    scripts: Scripts
    ledger: Ledger
    client: httpx.AsyncBaseTransport
    fleet: Fleet
    router: Router

    def latency(self, model: str, seconds: float) -> None:
        self.scripts.add(Script(name=model, match=Match(model=model), latency_seconds=seconds))

    async def call(self, policy: str) -> None:
        route = self.router.route(self.configuration, model=policy, provider=None, tokens_in=10, tokens_out=10)
        targets = [candidate.target for candidate in route.candidates]
        entered = await self.fleet.enter(targets, tokens=20, command_id="c", batch=False)
        assert isinstance(entered, Pass)
        timing = self.router.begin(entered.target)
        completion = await ask(self.client, entered.target, QUESTION, on_text=lambda _: timing.piece())
        timing.end(completion.tokens_out, ok=True)
        await entered.leave(Served(None, completion.seconds))

    async def share_of_a(self, policy: str, *, seconds: float, calls_per_second: float = 40) -> float:
        """Let calls begin at a steady rate for some time; returns the share of them that model-a got."""
        before = self.ledger.counts()["by_model"]
        async with asyncio.TaskGroup() as group:
            for _ in range(int(seconds * calls_per_second)):
                group.create_task(self.call(policy))
                await asyncio.sleep(1 / calls_per_second)
        after = self.ledger.counts()["by_model"]
        got = {name: after.get(name, 0) - before.get(name, 0) for name in ("model-a", "model-b")}
        return float(got["model-a"] / sum(got.values()))


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    scripts, ledger = Scripts(0), Ledger()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(running(port=0, scripts=scripts, ledger=ledger))
        path = tmp_path / "providers.toml"
        path.write_text(PROVIDERS.format(address=f"http://127.0.0.1:{port}/v1"))
        configuration = load(path, secret_from_environment=lambda _: None)
        client = await stack.enter_async_context(open_client())
        fleet = await stack.enter_async_context(open_fleet(""))
        yield Stand(configuration, scripts, ledger, client, fleet, Router())


async def test_equal_providers_get_equal_shares_of_3000_calls_under_weighted(stand: Stand) -> None:
    async def some() -> None:
        for _ in range(100):
            await stand.call("weighted")

    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(some())

    counted = stand.ledger.counts()["by_model"]
    assert counted["model-a"] + counted["model-b"] == 3000
    assert abs(counted["model-a"] - 1500) <= 75


async def test_fastest_leaves_a_provider_within_two_seconds_after_it_turned_ten_times_slower(stand: Stand) -> None:
    stand.latency("model-a", 0.1)
    stand.latency("model-b", 0.1)
    assert await stand.share_of_a("fastest", seconds=3) > 0.25

    stand.latency("model-a", 1.0)
    await stand.share_of_a("fastest", seconds=2)

    assert await stand.share_of_a("fastest", seconds=4) < 0.15


@pytest.mark.full
async def test_fastest_returns_to_a_provider_within_thirty_seconds_after_it_healed(stand: Stand) -> None:
    stand.latency("model-a", 0.1)
    stand.latency("model-b", 0.1)
    await stand.share_of_a("fastest", seconds=3)
    stand.latency("model-a", 1.0)
    await stand.share_of_a("fastest", seconds=3)

    stand.latency("model-a", 0.1)
    await stand.share_of_a("fastest", seconds=30)

    assert await stand.share_of_a("fastest", seconds=4) > 0.25
