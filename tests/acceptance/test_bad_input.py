"""Whatever an outside system writes into a work queue: it is a dead letter with its reason, and its neighbours flow."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import aio_pika
import pamqp.frame
import pytest
from aiormq.abc import ChannelFrame
from pamqp import commands as spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from tests.acceptance.outsider import KEYS, Outsider
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

GOOD = {
    "relay": ("relay.v1", {"sender": "user", "message": "hello", "timestamp": "2025-01-01T00:00:00Z"}),
    "ai": ("ai.send.v1", {"model": "steady", "prompt": "hello"}),
    "android": ("android.execute.v1", {"action": "getprop", "name": "ro.product.model"}),
}


DAWN = datetime(1970, 1, 1, tzinfo=UTC)


def nested(depth: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(depth):
        table = {"a": table}
    return table


def nested_table(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + len(table).to_bytes(4, "big") + table
    return table


def deep_json(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@dataclass(frozen=True, slots=True)
class Bad:
    """One bad message: what is changed in a good one, and what is to become of it."""

    reason: str
    properties: Callable[[str], dict[str, Any]] = lambda _: {}
    body: Callable[[dict[str, Any]], Any] = lambda body: body
    answered: bool = False
    """Its publisher gets a failed result."""
    names: str = ""
    """What the reason must mention."""


CASES = {
    "not JSON": Bad("not_json", body=lambda _: b"{not json", answered=True),
    "no body": Bad("not_json", body=lambda _: b"", answered=True),
    "not UTF-8": Bad("not_json", body=lambda _: b'{"a": "\xff\xfe"}', answered=True),
    "nested ten thousand deep": Bad("not_json", body=lambda _: deep_json(10_000), answered=True),
    "not an object": Bad("invalid_payload", body=lambda _: [1, 2], answered=True),
    "a missing field": Bad("invalid_payload", body=lambda _: {}, answered=True),
    "an unknown field": Bad("invalid_payload", body=lambda body: body | {"extra": 1}, answered=True, names="extra"),
    "a NUL in a name": Bad("invalid_payload", body=lambda body: body | {"ex\0tra": 1}, answered=True, names="ex"),
    "a name of 100,000 characters": Bad(
        "invalid_payload", body=lambda body: body | {"x" * 100_000: 1}, answered=True, names="xxx"
    ),
    "a body of 2 MiB": Bad(
        "invalid_payload",
        body=lambda body: json.dumps(body).encode() + b" " * 2 * 1024 * 1024,
        answered=True,
        names="at most 1048576 bytes",
    ),
    "an id that is no UUID": Bad("bad_message_id", lambda _: {"message_id": "42"}, answered=True),
    "an id with a NUL": Bad("bad_message_id", lambda _: {"message_id": "4\x002"}, answered=True),
    "no user": Bad("no_user_id", lambda _: {"user_id": None}),
    "no type": Bad("unknown_type", lambda _: {"type": None}, answered=True),
    "an unknown type": Bad("unknown_type", lambda _: {"type": "coffee.v1"}, answered=True),
    "a type with a NUL": Bad("unknown_type", lambda _: {"type": "coffee\x00.v1"}, answered=True),
    "an unknown version": Bad(
        "unknown_version", lambda type_: {"type": type_.removesuffix(".v1") + ".v2"}, answered=True
    ),
    "another's reply queue": Bad("foreign_reply_to", lambda _: {"reply_to": "reply.gateway.1"}, answered=True),
    "another kind": Bad(
        "wrong_queue",
        lambda type_: {"type": "relay.v1" if type_ != "relay.v1" else "ai.send.v1"},
        answered=True,
        names="key",
    ),
    "a NUL in the correlation id": Bad("invalid_header", lambda _: {"correlation_id": "a\x00b"}, answered=True),
    "a priority nobody knows": Bad("invalid_header", lambda _: {"headers": {"x-priority": "asap"}}, answered=True),
    "a deadline that is no number": Bad(
        "invalid_header", lambda _: {"headers": {"x-deadline-ms": "soon"}}, answered=True
    ),
    "a deadline in a year": Bad(
        "invalid_header", lambda _: {"headers": {"x-deadline-ms": milliseconds(365)}}, answered=True
    ),
    "headers with NULs": Bad(
        "invalid_header", lambda _: {"headers": {"x-priority": "a\x00b", "c\x00": ["\x00"]}}, answered=True
    ),
    "headers nested 300 deep": Bad(
        "unknown_type", lambda _: {"headers": {"a": nested(300)}, "type": "coffee.v1"}, answered=True
    ),
    "headers that JSON has no words for": Bad(
        "unknown_type",
        lambda _: {"headers": {"a": Decimal("0.1"), "b": bytearray(b"\xff"), "c": DAWN}, "type": None},
        answered=True,
    ),
}
HARMLESS: dict[str, dict[str, Any]] = {
    "accepted at the end of time": {"headers": {"x-created-ms": 253_402_300_799_000}},
    "accepted in the year 9999": {"timestamp": datetime(9999, 12, 31, tzinfo=UTC)},
    "a trace that is none": {"headers": {"traceparent": "\x00"}},
    "another's name in our headers": {"headers": {"x-publisher": "gateway", "x-owner": "gateway", "x-attempt": 99}},
    "a count of deliveries": {"headers": {"x-delivery-count": 5_000}},
}


def milliseconds(days_ahead: float) -> int:
    return int((datetime.now(UTC).timestamp() + days_ahead * 86400) * 1000)


@pytest.mark.parametrize("pool", GOOD)
async def test_a_bad_message_is_a_dead_letter_with_its_reason_and_its_neighbours_flow(
    stage: Stage, demo: Outsider, pool: str
) -> None:
    type_, body = GOOD[pool]
    provider = await stage.provider()
    worker = stage.worker(pool, ISH_PROVIDERS_FILE=str(provider.providers_file))

    bad, neighbours = {}, []
    for name, case in CASES.items():
        properties = {"message_id": str(uuid4())} | case.properties(type_)
        await demo.publish(demo.command(type_, case.body(body), **{"type": type_} | properties), key=KEYS[type_])
        bad[name] = properties["message_id"]
        neighbours.append(await demo.publish(demo.command(type_, body)))
    neighbours += await demo.publish_all([demo.command(type_, body, **odd) for odd in HARMLESS.values()])
    await until("the neighbours are answered", lambda: demo.answered(neighbours))

    letters = {letter["message_id"]: letter for letter in await stage.records.dead_letters(demo.name)}
    letters |= {letter["message_id"]: letter for letter in await stage.records.dead_letters(None)}
    for name, case in CASES.items():
        letter = letters.pop(bad[name].replace("\0", "\ufffd"))
        assert (letter["reason"], case.names in letter["message"]) == (case.reason, True), name
        assert bool(demo.replies.get(bad[name])) == case.answered, name
        if case.answered:
            result = demo.reply(bad[name])
            assert (result["status"], result["error"]["code"]) == ("failed", case.reason), name
    assert not set(letters) & set(bad.values())
    assert worker.running
    await until("nothing waits", stage.queues.empty)


@pytest.mark.parametrize("pool", GOOD)
async def test_properties_that_cannot_be_decoded_stop_no_pool(stage: Stage, demo: Outsider, pool: str) -> None:
    type_, body = GOOD[pool]
    provider = await stage.provider()
    stage.worker(pool, ISH_PROVIDERS_FILE=str(provider.providers_file))
    marks = [uuid4().hex for _ in range(3)]

    # as clients in other languages can send them: RabbitMQ does not look into strings and numbers
    usual = {"message_type": type_, "user_id": demo.name, "message_id": str(uuid4()), "reply_to": f"reply.{demo.name}"}
    await publish_raw(demo, KEYS[type_], marks[0], usual | {"message_id": "MARK"}, {b"MARK": b"\xff\xfe\xfd\xfc"})
    late = {"headers": {"t": datetime.fromtimestamp(0x4D41524B, UTC)}}
    await publish_raw(demo, KEYS[type_], marks[1], usual | late, {b"\x00\x00\x00\x00MARK": b"\xff" * 8})
    deep = nested_table(3000)
    filler = b"S" + len(deep).to_bytes(4, "big") + b"x" * len(deep)
    table = b"F" + len(deep).to_bytes(4, "big") + deep
    headers = {"headers": {"a": "x" * len(deep)}}
    await publish_raw(demo, KEYS[type_], marks[2], usual | headers, {filler: table})
    after = await demo.publish(demo.command(type_, body))
    await until("the neighbour is answered", lambda: demo.answered([after]))

    async def buried() -> bool:
        bodies = [
            bytes(letter["body"]).decode(errors="replace") for letter in await stage.records.dead_letters(demo.name)
        ]
        return all(mark in bodies for mark in marks)

    await until("they are dead letters", buried)
    reasons = {
        letter["reason"]
        for letter in await stage.records.dead_letters(demo.name)
        if bytes(letter["body"]).decode(errors="replace") in marks
    }
    assert reasons == {"invalid_header"}
    await until("each is answered", lambda: len(demo.replies[""]) == 1 and len(demo.replies[usual["message_id"]]) == 2)
    results = [json.loads(body) for body in demo.replies[""] + demo.replies[usual["message_id"]]]
    assert {(one["status"], one["error"]["code"]) for one in results} == {("failed", "invalid_header")}
    await until("nothing waits", stage.queues.empty)


async def test_a_message_without_an_id_is_a_dead_letter(stage: Stage, demo: Outsider) -> None:
    stage.worker("relay")

    # aio-pika would make one up
    properties = {"message_type": "relay.v1", "user_id": demo.name, "reply_to": f"reply.{demo.name}"}
    await publish_raw(demo, "relay", "{}", properties, {})

    async def buried() -> bool:
        return [letter["reason"] for letter in await stage.records.dead_letters(demo.name)] == ["no_message_id"]

    await until("it is a dead letter", buried)
    await until("it is answered", lambda: demo.answered([""]))
    result = demo.reply("")
    assert (result["command_id"], result["kind"], result["error"]["code"]) == (None, "relay", "no_message_id")


async def test_what_no_queue_takes_is_answered_though_it_is_no_command(stage: Stage, demo: Outsider) -> None:
    stage.worker("outbox")

    id_ = await demo.publish(demo.command("coffee.v1", {}), key="android.execute.nobody")

    await until("it is answered", lambda: demo.answered([id_]))
    result = demo.reply(id_)
    assert (result["command_id"], result["status"], result["error"]["code"]) == (id_, "failed", "unknown_type")


async def publish_raw(
    demo: Outsider, key: str, body: str, properties: dict[str, Any], replaced: dict[bytes, bytes]
) -> None:
    """Publish by frames of our own making, with bytes replaced that aio-pika would not write."""
    connection = await aio_pika.connect(demo.url)
    async with connection:
        channel: Any = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        content = body.encode()
        header = ContentHeader(body_size=len(content), properties=spec.Basic.Properties(delivery_mode=2, **properties))
        header_frame = pamqp.frame.marshal(header, channel.number)
        for old, new in replaced.items():
            assert len(old) == len(new)
            assert header_frame.count(old) == 1
            header_frame = header_frame.replace(old, new)
        publish = spec.Basic.Publish(exchange="ish.commands", routing_key=key)
        frames = [
            pamqp.frame.marshal(publish, channel.number),
            header_frame,
            pamqp.frame.marshal(ContentBody(content), channel.number),
        ]
        drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await channel.write_queue.put(ChannelFrame(payload=b"".join(frames), should_close=False, drain_future=drained))
        await drained
