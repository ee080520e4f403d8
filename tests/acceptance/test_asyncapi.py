"""A command published exactly as the AsyncAPI document says, by a program that has read nothing else, gets its result."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aio_pika
import httpx
import jsonschema_rs
import pytest

from tests.acceptance.outsider import Account
from tests.acceptance.stage import Stage

SECONDS = 60.0


def resolved(document: dict[str, Any], reference: dict[str, str]) -> dict[str, Any]:
    here: Any = document
    for step in reference["$ref"].removeprefix("#/").split("/"):
        here = here[step]
    return resolved(document, here) if set(here) == {"$ref"} else here


@pytest.fixture
async def document(stage: Stage) -> dict[str, Any]:
    """As the gateway serves it."""
    client: httpx.AsyncClient = await stage.gateway()
    served: dict[str, Any] = (await client.get("/asyncapi")).json()
    return served


@pytest.mark.parametrize("channel_name", ["relay", "ai.send", "ai.send.batch", "android.execute"])
async def test_published_as_the_document_says_it_is_answered_as_the_document_says(
    stage: Stage, account: Account, document: dict[str, Any], channel_name: str
) -> None:
    provider = await stage.provider()
    pool = {"relay": "relay", "ai.send": "ai", "ai.send.batch": "ai", "android.execute": "android"}[channel_name]
    stage.worker(pool, ISH_PROVIDERS_FILE=str(provider.providers_file))
    operation = document["operations"][f"receive.{channel_name}"]
    channel = resolved(document, operation["channel"])
    message = resolved(document, operation["messages"][0])
    example = message["x-amqp-example"]
    command_id = str(uuid4())
    properties = {
        **example["properties"],
        "message_id": command_id,
        "user_id": account.name,
        "reply_to": resolved(document, operation["reply"]["channel"])["address"].format(publisher=account.name),
        "timestamp": datetime.now(UTC),
    }
    payload = {**example["payload"]}
    if "ai" in channel_name:
        payload |= {"model": "steady"}
    if channel_name == "android.execute":
        payload |= {"tag": "nobody-has-this"}  # no phone is here: its deadline ends it
        example["headers"] = {"x-deadline-ms": int(datetime.now(UTC).timestamp() * 1000) + 1000}
        stage.worker("outbox")

    connection = await aio_pika.connect(account.url)
    async with connection, asyncio.timeout(SECONDS):
        opened = await connection.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await opened.get_exchange(channel["bindings"]["amqp"]["exchange"]["name"], ensure=False)
        await exchange.publish(
            aio_pika.Message(json.dumps(payload).encode(), headers=example["headers"], **properties),
            routing_key=channel["address"],
            mandatory=operation["bindings"]["amqp"]["mandatory"],
        )
        replies = await opened.get_queue(properties["reply_to"], ensure=False)
        async with replies.iterator() as arriving:
            reply = await anext(arriving)
            await reply.ack()

    [answer] = [
        one
        for one in (resolved(document, reference) for reference in operation["reply"]["messages"])
        if one["bindings"]["amqp"]["messageType"] == reply.type
    ]
    schema = {**answer["payload"], "components": document["components"]}
    result = json.loads(reply.body)
    assert [error.message for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(result)] == []
    sent = {
        "message_id": reply.message_id,
        "type": reply.type,
        "user_id": reply.user_id,
        "app_id": reply.app_id,
        "content_type": reply.content_type,
        "delivery_mode": int(reply.delivery_mode),
        "correlation_id": reply.correlation_id,
    }
    assert jsonschema_rs.Draft202012Validator(answer["x-amqp-properties"]).is_valid(sent), sent
    assert (reply.message_id, reply.correlation_id) == (command_id, example["properties"]["correlation_id"])
    allowed = {"expired", "failed"} if channel_name == "android.execute" else {"succeeded"}
    assert result["status"] in allowed, result
