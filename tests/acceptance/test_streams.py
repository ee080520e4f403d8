"""Answers followed while they are made, through the whole product: nothing is repeated, missing or cut in silence."""

import asyncio
import signal
from typing import Any

import httpx
import pytest

from tests.acceptance.records import until
from tests.acceptance.stage import Provider, Stage
from tests.integration.event_client import follow, text_of

WORDS = 40
SLOW = {"steps": [{"ok": True, "tokens": WORDS}], "seconds_per_token": 0.05, "repeat": True}
ANSWER = " ".join(f"token-{number}" for number in range(1, WORDS + 1))


async def _slow_provider(stage: Stage) -> tuple[Provider, dict[str, str]]:
    provider = await stage.provider()
    await provider.script(**SLOW)
    return provider, {"ISH_PROVIDERS_FILE": str(provider.providers_file)}


async def _ask(client: httpx.AsyncClient, **more: Any) -> str:
    answer = await client.post("/api/send", json={"model": "steady", "prompt": "hello", "stream": True, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_answer_is_told_while_it_is_made_and_the_result_is_its_whole(stage: Stage) -> None:
    client = await stage.gateway()
    _, settings = await _slow_provider(stage)
    stage.worker("ai", **settings)

    async with follow(client, await _ask(client)) as events:
        seen = await events.rest()

    tokens = [one for one in seen if one.name == "token"]
    assert len(tokens) > WORDS / 4, "it came word by word"
    assert text_of(seen) == ANSWER == seen[-1].data["output"]["text"]
    states = [one.data["status"] for one in seen if one.name == "state"]
    assert states[-2:] == ["running", "succeeded"]
    assert "restart" not in {one.name for one in seen}


async def test_follower_that_is_cut_off_again_and_again_misses_and_repeats_nothing(stage: Stage) -> None:
    first, second = await stage.gateway("first"), await stage.gateway("second")
    _, settings = await _slow_provider(stage)
    stage.worker("ai", **settings)
    command_id = await _ask(first)

    seen: list[Any] = []
    after: str | None = None
    for turn in range(100):
        async with follow((first, second)[turn % 2], command_id, after=after) as events:
            part = await events.until("token", "result")
        seen += part
        after = part[-1].id
        if part[-1].name == "result":
            break

    assert sum(one.name == "token" for one in seen) > 3
    assert text_of(seen) == ANSWER == seen[-1].data["output"]["text"]


async def test_answer_whose_worker_is_killed_begins_anew_and_ends_whole(stage: Stage) -> None:
    client = await stage.gateway()
    _, settings = await _slow_provider(stage)
    first = stage.worker("ai", "first", **settings)
    command_id = await _ask(client)

    async with follow(client, command_id) as events:
        await events.until("token")
        first.send(signal.SIGKILL)
        stage.worker("ai", "second", **settings)
        seen = await events.rest()

    assert [one.name for one in seen].count("restart") == 1
    assert text_of(seen) == ANSWER == seen[-1].data["output"]["text"]
    assert seen[-1].data["attempts"] == 2


async def test_stream_that_a_provider_cuts_is_made_anew_within_the_same_run(stage: Stage) -> None:
    client = await stage.gateway()
    provider, settings = await _slow_provider(stage)
    await provider.script(
        match={"contains": "cut"},
        steps=[{"fault": "close_mid_body", "tokens": WORDS, "after_tokens": 10}, {"ok": True, "tokens": WORDS}],
        seconds_per_token=0.02,
    )
    stage.worker("ai", **settings)

    async with follow(client, await _ask(client, prompt="cut me off")) as events:
        seen = await events.rest()

    assert seen[-1].data["status"] == "succeeded"
    assert text_of(seen) == ANSWER == seen[-1].data["output"]["text"]


async def test_redis_that_goes_away_takes_nothing_from_the_answer(stage: Stage) -> None:
    client = await stage.gateway()
    _, settings = await _slow_provider(stage)
    stage.worker("ai", **settings)
    command_id = await _ask(client)

    async with follow(client, command_id) as events:
        await events.until("token")
        await asyncio.to_thread(stage.services.redis.kill)
        try:
            seen = await events.rest()
        finally:
            await stage.back(stage.services.redis)

    assert seen[-1].data["output"]["text"] == ANSWER
    assert [one.name for one in seen][-3:] == ["restart", "state", "result"]


@pytest.mark.parametrize("stream", [False, True])
async def test_gateway_that_is_killed_is_noticed_and_its_command_is_finished(stage: Stage, *, stream: bool) -> None:
    second = await stage.gateway("second")
    provider, settings = await _slow_provider(stage)
    stage.worker("ai", **settings)
    process, first = await stage.gateway_process("first")
    body = {"model": "steady", "messages": [{"role": "user", "content": "hello"}], "stream": stream}

    asking = asyncio.ensure_future(first.post("/v1/chat/completions", json=body))
    await until("it is being answered", lambda: bool(provider.calls()))
    process.send(signal.SIGKILL)
    with pytest.raises(httpx.TransportError):
        await asking
    [command] = (await second.get("/api/commands")).json()["items"]
    view = (await second.get(f"/api/commands/{command['id']}", params={"wait": 30})).json()

    assert view["result"]["output"]["text"] == ANSWER
