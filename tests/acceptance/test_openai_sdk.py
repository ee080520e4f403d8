"""OpenAI's own SDK, unmodified, with nothing set but `base_url` and `api_key`: against the whole product."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from redis.asyncio import Redis

from ops.stack.binaries import Finder, default_cache_dir
from tests.acceptance.records import until
from tests.acceptance.stage import Provider, Stage, free_port

_PROVIDERS = """
[providers.scripted]
dialect = "openai"
base_url = "{address}"
[providers.scripted.models.steady]
context_tokens = 8000
input_usd_per_million_tokens = 1
output_usd_per_million_tokens = 2
[providers.scripted.models.other]
[aliases.default]
models = ["scripted/steady", "scripted/other"]
"""
ASK: Any = {"model": "default", "messages": [{"role": "user", "content": "What is a queue?"}]}
WORDS = 40
ANSWER = " ".join(f"token-{number}" for number in range(1, WORDS + 1))


@dataclass(frozen=True, slots=True)
class Setup:
    """A gateway, an AI worker and a provider, and the SDK's client."""

    stage: Stage
    provider: Provider
    gateway: httpx.AsyncClient
    sdk: AsyncOpenAI

    @property
    def address(self) -> dict[str, Any]:
        return {"base_url": str(self.sdk.base_url), "api_key": self.stage.key}

    def worker(self, name: str = "ai") -> Any:
        return self.stage.worker("ai", name, ISH_PROVIDERS_FILE=str(self.provider.providers_file))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
async def setup(stage: Stage) -> AsyncIterator[Setup]:
    """Everything but the worker."""
    async with Redis.from_url(stage.services.redis_url) as redis:
        await redis.flushall()  # what an earlier test's provider asked for holds for all of that name
    provider = await stage.provider()
    provider.providers_file.write_text(_PROVIDERS.format(address=provider.address), encoding="utf-8")
    gateway = await stage.gateway()
    async with AsyncOpenAI(base_url=_v1(gateway), api_key=stage.key) as sdk:
        yield Setup(stage, provider, gateway, sdk)


def _v1(gateway: httpx.AsyncClient) -> str:
    return str(gateway.base_url.join("/v1"))


async def test_chat_answers_with_text_usage_and_the_command_behind_it(setup: Setup) -> None:
    setup.worker()

    raw = await setup.sdk.chat.completions.with_raw_response.create(**ASK)
    answer = raw.parse()
    command_id = raw.headers["ish-command-id"]
    view = (await setup.gateway.get(f"/api/commands/{command_id}")).json()

    [choice] = answer.choices
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    assert (choice.message.content or "").endswith("What is a queue?")
    assert answer.id == f"chatcmpl-{command_id}"
    assert answer.model == "steady"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert view["result"]["output"]["text"] == choice.message.content
    [attempt] = view["attempts"]
    assert (attempt["tokens_in"], attempt["tokens_out"]) == (
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )
    assert attempt["cost_usd"] == pytest.approx((attempt["tokens_in"] + 2 * attempt["tokens_out"]) / 1_000_000)
    assert [one["target"] for one in attempt["details"]["route"]["candidates"]] == ["scripted/steady", "scripted/other"]
    assert [one["outcome"] for one in attempt["details"]["calls"]] == ["ok"]


def _in_a_thread(address: dict[str, Any]) -> tuple[str | None, str]:
    with OpenAI(**address) as sdk:
        first = sdk.chat.completions.create(**ASK)
        # what came back is sent again, as chat loops do
        messages = [*ASK["messages"], first.choices[0].message, {"role": "user", "content": "And then?"}]
        with sdk.chat.completions.create(model="default", messages=messages, stream=True) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    return first.choices[0].message.content, text


async def test_blocking_client_talks_and_goes_on_with_the_answer(setup: Setup) -> None:
    setup.worker()

    first, second = await asyncio.to_thread(_in_a_thread, setup.address)

    assert (first or "").endswith("What is a queue?")
    assert second.endswith("And then?")


async def test_stream_comes_word_by_word_with_its_usage(setup: Setup) -> None:
    await setup.provider.script(steps=[{"ok": True, "tokens": WORDS}], seconds_per_token=0.05)
    setup.worker()

    stream = await setup.sdk.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    async with stream:
        chunks = [chunk async for chunk in stream]

    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(texts) > WORDS / 4
    assert "".join(texts) == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == WORDS


async def test_the_sdks_own_helper_puts_a_stream_together(setup: Setup) -> None:
    await setup.provider.script(steps=[{"ok": True, "tokens": WORDS}], seconds_per_token=0.01)
    setup.worker()

    async with setup.sdk.chat.completions.stream(**ASK) as stream:
        completion = await stream.get_final_completion()

    assert completion.choices[0].message.content == ANSWER
    assert completion.choices[0].finish_reason == "stop"


async def test_models_are_listed_and_read(setup: Setup) -> None:
    setup.worker()

    async def listed() -> bool:
        return bool((await setup.sdk.models.list()).data)

    await until("the worker has recorded its models", listed)
    names = [model.id async for model in setup.sdk.models.list()]
    one = await setup.sdk.models.retrieve("scripted/steady")
    alias = await setup.sdk.models.retrieve("default")

    assert {"default", "scripted/steady", "scripted/other"} <= set(names)
    assert (one.object, one.owned_by) == ("model", "scripted")
    assert alias.id == "default"


async def test_extras_of_ours_go_in_extra_body(setup: Setup) -> None:
    setup.worker()
    said: Any = {"conversation_id": "talk", "provider": "scripted"}

    await setup.sdk.chat.completions.create(**ASK, extra_body=said)
    lines = (await setup.gateway.get("/api/conversations/talk/messages")).json()["items"]

    assert [line["sender"] for line in lines] == ["user", "bot"]


@dataclass(frozen=True, slots=True)
class Wrong:
    """A request that cannot be answered, and what the SDK makes of it."""

    error: type[openai.APIStatusError]
    code: str
    status: int
    request: dict[str, Any]
    step: dict[str, Any] | None = None
    param: str | None = None


_SHORT = {"extra_headers": {"Ish-Deadline-Seconds": "6"}}
WRONG = {
    "a parameter that is not supported": Wrong(
        openai.BadRequestError, "unsupported_parameter", 400, {"n": 2}, param="n"
    ),
    "a parameter out of range": Wrong(
        openai.BadRequestError, "invalid_value", 400, {"temperature": 9}, param="temperature"
    ),
    "a model that is not there": Wrong(
        openai.NotFoundError, "model_not_found", 404, {"model": "gpt-99"}, param="model"
    ),
    "too long for the model": Wrong(
        openai.BadRequestError, "context_length_exceeded", 400, {}, {"fault": "context_too_long"}, "messages"
    ),
    "refused for its content": Wrong(
        openai.BadRequestError, "content_filter", 400, {}, {"fault": "content_refused"}, "messages"
    ),
    "a provider's rate limit beyond the deadline": Wrong(
        openai.RateLimitError, "rate_limit_exceeded", 429, _SHORT, {"status": 429, "retry_after": 600}
    ),
    "a deadline that passes": Wrong(
        openai.InternalServerError, "deadline_passed", 504, _SHORT, {"ok": True, "latency_seconds": 60}
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", WRONG)
async def test_error_is_the_class_that_its_users_catch(setup: Setup, name: str, *, stream: bool) -> None:
    wrong = WRONG[name]
    if wrong.step is not None:
        await setup.provider.script(steps=[wrong.step], repeat=True)
    # the time until a deadline is not to be spent on the start of a process
    await setup.stage.line_of(setup.worker(), "consumer_started")
    request = {**ASK, **wrong.request, "stream": stream}

    with pytest.raises(wrong.error) as caught:
        await setup.sdk.chat.completions.create(**request)

    assert (caught.value.status_code, caught.value.code, caught.value.param) == (wrong.status, wrong.code, wrong.param)
    assert len((await setup.gateway.get("/api/commands")).json()["items"]) <= 1, "it was not sent again"


async def test_key_that_is_not_valid_is_an_authentication_error(setup: Setup) -> None:
    for key in ("sk-nothing", f"ish_{'a' * 12}_{'b' * 43}"):
        with pytest.raises(openai.AuthenticationError) as caught:
            await setup.sdk.with_options(api_key=key).chat.completions.create(**ASK)
        assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError):
        await setup.sdk.models.retrieve("gpt-99")


async def test_cancelled_command_is_a_conflict_and_is_not_sent_again(setup: Setup) -> None:
    asking = asyncio.ensure_future(setup.sdk.chat.completions.create(**ASK))

    async def cancelled() -> bool:
        items = (await setup.gateway.get("/api/commands")).json()["items"]
        return bool(items) and (await setup.gateway.delete(f"/api/commands/{items[0]['id']}")).is_success

    await until("it is cancelled", cancelled)
    with pytest.raises(openai.ConflictError):
        await asking
    assert len((await setup.gateway.get("/api/commands")).json()["items"]) == 1


async def test_worker_killed_in_the_middle_of_streams_cuts_none_in_silence(setup: Setup) -> None:
    await setup.provider.script(steps=[{"ok": True, "tokens": WORDS}], seconds_per_token=0.05, repeat=True)
    first = setup.worker("first")
    begun = 0

    async def read(delay_seconds: float) -> str:
        nonlocal begun
        await asyncio.sleep(delay_seconds)
        text = ""
        stream = await setup.sdk.chat.completions.create(**ASK, stream=True)
        async with stream:
            async for chunk in stream:
                piece = chunk.choices[0].delta.content or ""
                begun += bool(piece and not text)
                text += piece
        return text

    reading = [asyncio.ensure_future(read(number * 0.1)) for number in range(20)]
    await until("some are in the middle", lambda: begun >= 5)
    first.send(signal.SIGKILL)
    setup.worker("second")
    ends = await asyncio.gather(*reading, return_exceptions=True)

    errors = [end for end in ends if isinstance(end, BaseException)]
    assert errors, "some had text of the killed worker"
    assert {end for end in ends if isinstance(end, str)} <= {ANSWER}
    for error in errors:
        assert isinstance(error, openai.APIError), repr(error)
        assert error.code == "stream_interrupted"
        command_id = UUID(error.message.partition("/api/commands/")[2].rstrip("."))
        view = (await setup.gateway.get(f"/api/commands/{command_id}", params={"wait": 60})).json()
        assert view["result"]["output"]["text"] == ANSWER


@pytest.fixture
async def local_model(stage: Stage) -> str:
    """The small real model, as the stack starts it; its address."""
    port = free_port()
    libraries = await asyncio.to_thread(Finder(default_cache_dir(), lambda _: None).openmp)
    model = stage.start_anew("model", "ops.simulators.model", "--port", str(port), **libraries)
    await stage.line_of(model, "(a small stand-in)")
    return f"http://127.0.0.1:{port}/v1"


async def test_a_real_model_answers_plain_and_streaming(stage: Stage, local_model: str) -> None:
    file = stage.folder / "local.toml"
    file.write_text(
        f'[providers.local]\ndialect = "openai"\nbase_url = "{local_model}"\n[providers.local.models.smollm2-135m]\n'
        '[aliases.default]\nmodels = ["local/smollm2-135m"]\n',
        encoding="utf-8",
    )
    gateway = await stage.gateway()
    stage.worker("ai", ISH_PROVIDERS_FILE=str(file))
    request: Any = {**ASK, "max_tokens": 24, "temperature": 0, "seed": 1}
    async with AsyncOpenAI(base_url=_v1(gateway), api_key=stage.key) as sdk:
        answer = await sdk.chat.completions.create(**request)
        stream = await sdk.chat.completions.create(**request, stream=True)
        async with stream:
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]

    text = answer.choices[0].message.content or ""
    assert len(text.split()) > 3
    assert answer.usage is not None
    assert 1 < answer.usage.completion_tokens <= 24
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert "".join(pieces) == text
    assert sum(1 for piece in pieces if piece) > 3, json.dumps(pieces)
