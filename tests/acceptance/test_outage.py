"""All providers fail at once: what is queued waits, nothing fails, and they are not overrun when they are back."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest

from tests.acceptance.outsider import Outsider
from tests.acceptance.records import until
from tests.acceptance.stage import Provider, Stage

_TWO_PROVIDERS = """
[providers.one]
dialect = "openai"
base_url = "{address}/one/v1"
[providers.one.models.steady]
[providers.two]
dialect = "openai"
base_url = "{address}/two/v1"
[providers.two.models.steady]
[aliases.default]
models = ["one/steady", "two/steady"]
"""
_DOWN = {"name": "down", "steps": [{"status": 503}], "repeat": True}
_ANSWER_SECONDS = 0.2


async def test_commands_outlast_an_outage_of_all_providers(stage: Stage, demo: Outsider) -> None:
    await outage(stage, demo, commands=120, seconds=10)


@pytest.mark.full
async def test_five_hundred_commands_outlast_a_minute_without_any_provider(stage: Stage, demo: Outsider) -> None:
    await outage(stage, demo, commands=500, seconds=60)


async def outage(stage: Stage, demo: Outsider, *, commands: int, seconds: float) -> None:
    provider = await stage.provider(latency_seconds=_ANSWER_SECONDS)
    provider.providers_file.write_text(_TWO_PROVIDERS.format(address=provider.address.removesuffix("/v1")))
    await provider.script(**_DOWN)
    for name in ("first", "second"):
        worker = stage.worker("ai", name, ISH_PROVIDERS_FILE=str(provider.providers_file))
        await stage.line_of(worker, "consumer_started")

    ids = await demo.publish_all([demo.command("ai.send.v1", {"prompt": f"question {n}"}) for n in range(commands)])
    await until("both providers are found to fail", lambda: len(calls(provider)) >= 6)
    await asyncio.sleep(seconds)  # how long it lasts is what is tested
    assert not any(demo.replies.values())
    back_at = time.time()
    tried = Counter(call["path"] for call in calls(provider))
    await provider.script(name="down", latency_seconds=_ANSWER_SECONDS)
    await until("all are answered", lambda: demo.answered(ids), seconds=240)

    assert {demo.reply(id_)["status"] for id_ in ids} == {"succeeded"}
    rows = await stage.records.commands(demo.name)
    assert {row["state"] for row in rows.values()} == {"succeeded"}
    assert await stage.records.dead_letters(demo.name) == []
    # what was in flight when the outage was noticed has called in vain, and after that single probes
    assert all(count < 110 + 2 * seconds for count in tried.values()), tried
    # a slow start: each answer lets one more call in, from two on
    assert most_at_once(provider, since=back_at, seconds=2 * _ANSWER_SECONDS) <= 16
    await until("nothing waits", stage.queues.empty)


def calls(provider: Provider) -> list[dict[str, Any]]:
    lines = map(json.loads, provider.ledger.read_bytes().splitlines())
    return [line for line in lines if line["event"] == "invoke"]


def most_at_once(provider: Provider, *, since: float, seconds: float) -> int:
    """The most calls of one provider that began within such a time of each other, right after the first answer."""
    by_path: dict[str, list[float]] = {}
    for call in calls(provider):
        if call["at"] > since:
            by_path.setdefault(call["path"], []).append(call["at"])
    return max(sum(at - moments[0] < seconds for at in moments) for moments in by_path.values())
