"""OpenAI's dialect when something is wrong: every end has its status, and names the command that goes on."""

import asyncio
import signal
from uuid import UUID, uuid4

import httpx
import pytest

from contracts.errors import ErrorCode, Permanent
from ops.admin import keys
from ops.stack.session import Session
from tests.integration.chat_client import ASK, CHAT, ChatStream, fail, only_command
from tests.integration.gateway_process import (
    GatewayProcess,
    frozen,
    gateway_process,
)
from workers.ai.answers.streaming import TokenStreams


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        (ErrorCode.MODEL_NOT_FOUND, 404, "model_not_found"),
        (ErrorCode.CONTEXT_TOO_LONG, 400, "context_length_exceeded"),
        (ErrorCode.PROVIDER_RATE_LIMITED, 429, "rate_limit_exceeded"),
        (ErrorCode.PROVIDER_UNAVAILABLE, 502, "provider_unavailable"),
    ],
)
async def test_failed_command_is_an_error_with_its_status(
    services: Session, client: httpx.AsyncClient, code: ErrorCode, status: int, name: str, *, stream: bool
) -> None:
    waiting = asyncio.ensure_future(client.post(CHAT, json={**ASK, "stream": stream}))
    command_id = await only_command(client)
    await fail(services, command_id, Permanent(code, "why"))

    answer = await waiting

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, name)
    assert answer.headers["ish-command-id"] == command_id
    assert answer.headers["x-should-retry"] == "false"


async def test_failure_after_text_is_an_error_in_the_stream(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    stream = ChatStream(client)
    command_id = await only_command(client)
    writer = streams.writer("gateway", UUID(command_id))
    writer.begin("a")
    writer.write("Hello")
    await stream.reaches("Hello")
    await fail(services, command_id, Permanent(ErrorCode.CONTENT_REFUSED, "why"))

    assert (await stream.ended())["error"]["code"] == "content_filter"
    assert not stream.complete()


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelled_command_is_a_409(client: httpx.AsyncClient, *, stream: bool) -> None:
    waiting = asyncio.ensure_future(client.post(CHAT, json={**ASK, "stream": stream}))
    await client.delete(f"/api/commands/{await only_command(client)}")

    answer = await waiting

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cancelled")
    assert answer.headers["x-should-retry"] == "false"


async def test_stopping_gateway_ends_streams_and_waits_with_an_error_that_names_the_command(
    services: Session, streams: TokenStreams
) -> None:
    one, two = [await keys.create_key(services.postgres_url("ish_ops"), f"o{uuid4().hex[:10]}") for _ in range(2)]
    with gateway_process(services) as gateway:
        async with gateway.client(one) as streaming, gateway.client(two) as plain:
            stream = ChatStream(streaming)
            waiting = asyncio.ensure_future(plain.post(CHAT, json=ASK))
            streamed, waited = await only_command(streaming), await only_command(plain)
            writer = streams.writer("gateway", UUID(streamed))
            writer.begin("a")
            writer.write("Hello")
            await stream.reaches("Hello")
            gateway.process.send(signal.SIGTERM)
            last, answer = await stream.ended(), await waiting
            code = await asyncio.to_thread(gateway.ended)
        log = gateway.log.read_text(encoding="utf-8")

    assert (code, "Traceback" in log) == (0, False)
    assert last["error"]["code"] == "gateway_stopping"
    assert streamed in last["error"]["message"]
    assert not stream.complete()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "gateway_stopping")
    assert waited in answer.json()["error"]["message"]


async def test_wait_ends_a_little_after_the_deadline_and_names_the_command(client: httpx.AsyncClient) -> None:
    # nobody ends it: no outbox worker runs here
    answer = await client.post(CHAT, json=ASK, headers={"Ish-Deadline-Seconds": "0.5"}, timeout=120)

    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert answer.headers["ish-command-id"] in answer.json()["error"]["message"]


async def test_every_error_under_v1_has_openais_form(gateway: GatewayProcess, client: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as stranger:
        answers = [
            (401, await stranger.post(CHAT, json=ASK)),
            (401, await stranger.post(CHAT, json=ASK, headers={"Authorization": "Bearer sk-nothing"})),
            (401, await stranger.get("/v1/models")),
            (400, await client.post(CHAT, content=b"{", headers={"Content-Type": "application/json"})),
            (400, await client.post(CHAT, json={**ASK, "n": 2})),
            (404, await client.get("/v1/nothing")),
            (404, await client.get("/v1/models/nothing")),
            (405, await client.get(CHAT)),
            (413, await client.post(CHAT, content=b" " * 2_000_000)),
            (415, await client.post(CHAT, content=b"x", headers={"Content-Type": "text/plain"})),
            (400, await client.post(CHAT, json=ASK, headers={"Ish-Priority": "soon"})),
        ]

    for status, answer in answers:
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"]
    assert answers[4][1].json()["error"]["param"] == "n"
    assert answers[-1][1].json()["error"]["param"] == "Ish-Priority"


async def test_broker_away_is_a_503_that_says_when_to_come_back(services: Session, client: httpx.AsyncClient) -> None:
    with frozen(services.broker):
        frozen_answer = await client.post(CHAT, json=ASK)

    assert frozen_answer.status_code == 503
    assert frozen_answer.headers["retry-after"] == "1"
    assert frozen_answer.json()["error"]["type"] == "server_error"


async def test_other_paths_keep_problem_documents(client: httpx.AsyncClient) -> None:
    answer = await client.get("/nothing")

    assert answer.headers["content-type"] == "application/problem+json"
