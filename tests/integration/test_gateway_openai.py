"""OpenAI's dialect at the gateway, with the worker's part played by hand: what goes out when."""

import asyncio
import json
from uuid import UUID, uuid4

import httpx
import pytest

from ops.stack.session import Session
from tests.integration.chat_client import ASK, CHAT, OUTPUT, ChatStream, only_command
from tests.integration.event_client import Events
from tests.integration.gateway_process import (
    empty_work_queues,
    eventually,
    finish,
    gateway_process,
    take,
)
from workers.ai.answers.streaming import TokenStreams


async def test_whole_answer(services: Session, client: httpx.AsyncClient) -> None:
    await empty_work_queues(services)
    waiting = asyncio.ensure_future(client.post(CHAT, json={**ASK, "user": "u-1"}))
    command_id = await only_command(client)
    [message] = await take(services, "ish.ai")
    await finish(services, command_id, reply=True, output={**OUTPUT, "citations": ["https://a"]})

    answer = await waiting

    assert answer.status_code == 200
    assert answer.headers["ish-command-id"] == command_id
    body = answer.json()
    assert body["id"] == f"chatcmpl-{command_id}"
    assert body["choices"][0]["message"]["content"] == "Hello, world"
    assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert body["citations"] == ["https://a"]
    assert json.loads(message.body) == {"messages": ASK["messages"], "model": "default", "metadata": {"user": "u-1"}}
    assert message.headers["x-deadline-ms"] - message.headers["x-created-ms"] == 600_000
    assert message.reply_to.startswith("reply.gateway.")


async def test_headers_and_tier_choose_deadline_and_queue(services: Session, client: httpx.AsyncClient) -> None:
    await empty_work_queues(services)
    waiting = asyncio.ensure_future(
        client.post(CHAT, json={**ASK, "service_tier": "flex"}, headers={"Ish-Deadline-Seconds": "30"})
    )
    command_id = await only_command(client)
    [message] = await take(services, "ish.ai.batch")
    await finish(services, command_id, reply=False, output=OUTPUT)

    assert (await waiting).status_code == 200
    assert message.headers["x-deadline-ms"] - message.headers["x-created-ms"] == 30_000
    assert message.headers["x-priority"] == "batch"


async def test_stream_tells_text_while_it_is_made_and_its_end_only_once_it_is_on_record(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    stream = ChatStream(client, stream_options={"include_usage": True})
    command_id = await only_command(client)
    writer = streams.writer("gateway", UUID(command_id))
    writer.begin("a")
    writer.write("Hello")
    await stream.reaches("Hello")
    writer.write(", ")
    await stream.reaches("Hello, ")
    assert stream.answer is not None
    assert not stream.complete()
    await finish(services, command_id, reply=True, output=OUTPUT)
    last = await stream.ended()

    assert stream.text == "Hello, world"
    assert stream.complete()
    assert last["usage"]["total_tokens"] == 3
    assert stream.chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert stream.chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["id"] for chunk in stream.chunks} == {f"chatcmpl-{command_id}"}
    assert stream.answer.headers["ish-command-id"] == command_id
    assert stream.answer.headers["content-type"].startswith("text/event-stream")


async def test_stream_without_redis_has_the_whole_text_at_the_end(services: Session, key: str) -> None:
    with gateway_process(services, ISH_REDIS_URL="", ISH_REDIS_URL_FILE="") as gateway:
        async with gateway.client(key) as client:
            stream = ChatStream(client)
            await finish(services, await only_command(client), reply=True, output=OUTPUT)
            await stream.ended()

    assert stream.text == "Hello, world"
    assert stream.complete()


async def test_stream_whose_answer_begins_anew_after_text_ends_with_an_error_that_names_the_command(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    stream = ChatStream(client)
    command_id = await only_command(client)
    first, second = (streams.writer("gateway", UUID(command_id)) for _ in range(2))
    first.begin("a")
    first.write("Half an ans")
    await stream.reaches("Half an ans")
    second.begin("a")
    second.write("Hello")

    last = await stream.ended()
    await finish(services, command_id, reply=True, output=OUTPUT)
    view = (await client.get(f"/api/commands/{command_id}")).json()

    assert last["error"]["code"] == "stream_interrupted"
    assert f"GET /api/commands/{command_id}" in last["error"]["message"]
    assert not stream.complete()
    assert view["result"]["output"]["text"] == "Hello, world"


async def test_stream_whose_answer_begins_anew_before_any_text_was_told_is_whole(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    stream = ChatStream(client)
    command_id = await only_command(client)
    writer = streams.writer("gateway", UUID(command_id))
    writer.begin("a")
    writer.begin("b")
    writer.write("Hello")
    await stream.reaches("Hello")
    await finish(services, command_id, reply=True, output=OUTPUT)
    await stream.ended()

    assert stream.text == "Hello, world"
    assert stream.complete()


async def test_stream_whose_result_is_another_text_ends_with_an_error(
    services: Session, client: httpx.AsyncClient, streams: TokenStreams
) -> None:
    stream = ChatStream(client)
    command_id = await only_command(client)
    writer = streams.writer("gateway", UUID(command_id))
    writer.begin("a")
    writer.write("Something else")
    await stream.reaches("Something else")
    await finish(services, command_id, reply=True, output=OUTPUT)

    assert (await stream.ended())["error"]["code"] == "stream_interrupted"
    assert not stream.complete()


async def test_quiet_stream_is_kept_alive(services: Session, client: httpx.AsyncClient) -> None:
    async with client.stream("POST", CHAT, json={**ASK, "stream": True}) as answer:
        events = Events(answer)
        reading = asyncio.ensure_future(events.next())

        async def kept_alive() -> bool:
            return events.comments > 0

        await eventually(kept_alive)
        await finish(services, await only_command(client), reply=True, output=OUTPUT)
        first = await reading

    assert first is not None
    assert first.data["choices"][0]["delta"]["role"] == "assistant"


async def test_client_that_leaves_takes_nothing_with_it(services: Session, client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await client.post(CHAT, json=ASK, timeout=1)
    command_id = await only_command(client)
    await finish(services, command_id, reply=True, output=OUTPUT)

    view = (await client.get(f"/api/commands/{command_id}")).json()
    assert view["status"] == "succeeded"


@pytest.mark.parametrize("stream", [False, True])
async def test_same_idempotency_key_is_the_same_command_and_answer(
    services: Session, client: httpx.AsyncClient, *, stream: bool
) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    waiting = [
        asyncio.ensure_future(client.post(CHAT, json={**ASK, "stream": stream}, headers=headers)) for _ in range(2)
    ]
    command_id = await only_command(client)
    await finish(services, command_id, reply=True, output=OUTPUT)
    answers = [await one for one in waiting]
    again = await client.post(CHAT, json={**ASK, "stream": stream}, headers=headers)
    other = await client.post(CHAT, json={**ASK, "temperature": 0.5, "stream": stream}, headers=headers)

    assert {one.headers["ish-command-id"] for one in (*answers, again)} == {command_id}
    assert {one.text for one in answers} == {again.text}
    assert "Hello, world" in again.text
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
