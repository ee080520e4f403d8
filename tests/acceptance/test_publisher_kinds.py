"""What a publisher may not send is not run, whatever way it takes to a queue; it is told why."""

import json
from collections.abc import Mapping
from contextlib import suppress
from secrets import token_hex
from typing import Any

import aio_pika
import aiormq
import pytest

from ops.admin import publisher_records
from ops.admin.publishers import add_publisher
from ops.stack.addresses import with_login
from tests.acceptance.outsider import Account, Outsider, connected
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

TAP = ("android.execute.v1", {"action": "tap", "x": 10, "y": 10})
ASK = ("ai.send.v1", {"model": "steady", "prompt": "hello"})
RELAY = ("relay.v1", {"sender": "user", "message": "hello", "timestamp": "2025-01-01T00:00:00Z"})


async def publisher_of(stage: Stage, kinds: list[str] | None, *, recorded: bool = True) -> Account:
    """Add a publisher as `ish publishers add` does, or as it was done before kinds were recorded."""
    name, administrator = f"k-{token_hex(4)}", stage.services.amqp_url("admin")
    password = await add_publisher(
        stage.services.management_url,
        name,
        kinds=kinds,
        amqp_url_for_admin=administrator,
        postgres_url=stage.services.postgres_url("ish_ops") if recorded else None,
    )
    return Account(name, with_login(administrator, name, password))


async def publish(it: Outsider, command: tuple[str, Any], *, key: str, headers: Mapping[str, Any]) -> str:
    """Publish on a connection of its own; a broker that refuses the headers closes its channel."""
    message = it.command(command[0], command[1], headers=dict(headers))
    with suppress(aiormq.ChannelAccessRefused):  # newer RabbitMQ (4.0) checks CC and BCC itself
        async with await aio_pika.connect(it.url) as connection:
            channel = await connection.channel(publisher_confirms=True)
            exchange = await channel.get_exchange("ish.commands", ensure=False)
            await exchange.publish(message, routing_key=key, timeout=30)
    return str(message.message_id)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "made_before_kinds_were_recorded"])
async def test_routing_headers_carry_no_command_past_the_rights_of_its_publisher(
    stage: Stage, *, recorded: bool
) -> None:
    provider = await stage.provider()
    async with stage.phone() as effects, connected(await publisher_of(stage, ["relay"], recorded=recorded)) as it:
        stage.worker("relay")
        stage.worker("ai", ISH_PROVIDERS_FILE=str(provider.providers_file))
        stage.worker("android")
        stage.worker("outbox")
        attacks = [
            await publish(it, command, key="relay", headers={header: [key]})
            for header in ("CC", "BCC")
            for command, key in ((TAP, "android.execute"), (ASK, "ai.send"), (ASK, "ai.send.batch"))
        ]
        attacks.append(await publish(it, TAP, key="relay.nowhere", headers={"BCC": ["android.execute.no-phone"]}))
        innocent = await it.publish(it.command(*RELAY))

        await until("the innocent one is answered", lambda: it.answered([innocent]))
        assert it.reply(innocent)["status"] == "succeeded"
        await until("nothing waits", stage.queues.empty)
        letters = {one["message_id"]: one for one in await stage.records.dead_letters(it.name)}
        for attack in attacks:
            if attack in letters:  # else the broker has refused it
                codes = {json.loads(body)["error"]["code"] for body in it.replies[attack]}
                assert codes <= {"invalid_header", "wrong_queue", "unroutable"}
                assert codes
        assert not provider.calls()
        assert not effects.exists() or "tap" not in effects.read_text()


async def test_a_kind_that_is_not_among_a_publishers_own_is_refused_by_the_worker_itself(stage: Stage) -> None:
    provider = await stage.provider()
    async with connected(await publisher_of(stage, None)) as it:
        # the broker lets it publish everything, as with rights that were widened by hand
        await publisher_records.record(stage.services.postgres_url("ish_ops"), it.name, ["relay"])
        stage.worker("ai", ISH_PROVIDERS_FILE=str(provider.providers_file))
        stage.worker("android")
        stage.worker("outbox")
        stage.worker("relay")

        refused = [
            await it.publish(it.command(*ASK)),
            await it.publish(it.command(*ASK), key="ai.send.batch"),
            await it.publish(it.command(*TAP)),
            await it.publish(it.command(*TAP), key="android.execute.no-such-phone"),
        ]
        allowed = await it.publish(it.command(*RELAY))

        await until("all are answered", lambda: it.answered([*refused, allowed]))
        for id_ in refused:
            assert it.reply(id_)["error"]["code"] == "forbidden_kind"
            assert "it may publish relay" in it.reply(id_)["error"]["message"]
        assert it.reply(allowed)["status"] == "succeeded"
        assert not provider.calls()


async def test_kinds_that_are_taken_away_are_refused_within_seconds_and_no_worker_starts_anew(stage: Stage) -> None:
    provider = await stage.provider()
    async with connected(await publisher_of(stage, None)) as it:
        stage.worker("ai", ISH_PROVIDERS_FILE=str(provider.providers_file))
        before = await it.publish(it.command(*ASK))
        await until("it is answered", lambda: it.answered([before]))
        assert it.reply(before)["status"] == "succeeded"

        await publisher_records.record(stage.services.postgres_url("ish_ops"), it.name, ["relay"])

        async def is_refused() -> bool:
            id_ = await it.publish(it.command(*ASK))
            await until("it is answered", lambda: it.answered([id_]))
            reply = it.reply(id_)
            return bool(reply["status"] == "failed" and reply["error"]["code"] == "forbidden_kind")

        await until("the worker knows", is_refused)
