"""The outbox worker as others see it: replies whose queue was gone or full, and webhooks, also when it is killed."""

import json
import signal
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import aio_pika
import pytest
from standardwebhooks import Webhook

from ops.admin.publishers import add_publisher
from ops.admin.targets import add_target
from ops.stack.addresses import with_login
from tests.acceptance.broken_queues import make_full
from tests.acceptance.load import RELAY
from tests.acceptance.outsider import Account, Outsider, connected
from tests.acceptance.records import until
from tests.acceptance.stage import Stage
from tests.integration.webhook_receiver import Receiver, receiving
from workers.outbox.webhooks.addresses import Rules

LOCAL = Rules(allow_http=True, allow_private=True)
TO_LOCAL = {"ISH_DELIVERY_ALLOW_HTTP": "true", "ISH_DELIVERY_ALLOW_PRIVATE": "true"}
CONVERSATIONS = ("spring", "summer", "autumn")
MESSAGES = 12


async def test_a_reply_whose_queue_was_deleted_arrives_once_it_is_there_again(stage: Stage, account: Account) -> None:
    async with connected(account) as demo:
        ids = await demo.publish_all([demo.command("relay.v1", RELAY) for _ in range(5)])
    await stage.queues.delete(account.reply_queue)
    outbox = stage.worker("outbox")
    stage.worker("relay")

    await until("they are finished on record", lambda: stage.records.finished(account.name, ids))
    await stage.line_of(outbox, "reply_postponed")
    again = await added_again(stage, account)

    async with connected(again) as demo:
        await as_stored(stage, demo, ids)
    await until("nothing is left to send", lambda: nothing_to_send(stage, account))


async def test_a_reply_whose_queue_was_full_arrives_once_it_is_read(stage: Stage, account: Account) -> None:
    async with connected(account) as demo:
        ids = await demo.publish_all([demo.command("relay.v1", RELAY) for _ in range(5)])
    async with await aio_pika.connect(stage.services.amqp_url("admin")) as connection:
        await make_full(await connection.channel(publisher_confirms=True), account.reply_queue, exchange="ish.replies")
    outbox = stage.worker("outbox")
    stage.worker("relay")

    await until("they are finished on record", lambda: stage.records.finished(account.name, ids))
    await stage.line_of(outbox, "reply_postponed")

    async with connected(account) as demo:
        await as_stored(stage, demo, ids)
    await until("nothing is left to send", lambda: nothing_to_send(stage, account))


@pytest.mark.parametrize("timestamps", [False, True], ids=["no_timestamp", "timestamp_in_whole_seconds"])
async def test_webhooks_arrive_signed_and_in_accepted_order(stage: Stage, demo: Outsider, *, timestamps: bool) -> None:
    async with receiving() as receiver:
        secret = await deliver_to(receiver, stage, demo)
        stage.worker("relay")
        stage.worker("outbox", **TO_LOCAL)

        ids = await talk(demo, range(MESSAGES), **({"timestamp": datetime.now(UTC)} if timestamps else {}))
        await until("all have arrived", lambda: len(receiver.received) == len(ids))

        assert sorted(event["command_id"] for event in verified(receiver, secret)) == sorted(ids)
        assert_in_order(verified(receiver, secret))


async def test_webhooks_stay_in_order_when_the_outbox_worker_is_killed_with_some_on_their_way(
    stage: Stage, demo: Outsider
) -> None:
    async with receiving() as receiver:
        secret = await deliver_to(receiver, stage, demo)
        stage.worker("relay")
        doomed = stage.worker("outbox", "doomed", **TO_LOCAL)
        ids = await talk(demo, range(MESSAGES // 2))
        await until("the first half is delivered", lambda: all_delivered(stage, demo, len(ids)))
        receiver.open.clear()
        ids += await talk(demo, range(MESSAGES // 2, MESSAGES))
        await until("one of each conversation is on its way", lambda: receiver.inside == len(CONVERSATIONS))

        doomed.send(signal.SIGKILL)
        assert await stage.ended(doomed) == -signal.SIGKILL
        receiver.open.set()
        stage.worker("outbox", "second", **TO_LOCAL)
        # what the dead one had taken is tried again when its lease ends
        await until("all are delivered", lambda: all_delivered(stage, demo, len(ids)), seconds=150)

        events = verified(receiver, secret)
        first_of_each = list({event["command_id"]: event for event in events}.values())
        assert {event["command_id"] for event in first_of_each} == set(ids)
        assert_in_order(first_of_each)
        # nobody knows whether those that were on their way arrived: they come once more, the same
        twice = {id_ for id_, count in Counter(event["command_id"] for event in events).items() if count > 1}
        assert len(events) == len(ids) + len(CONVERSATIONS)
        assert len(twice) == len(CONVERSATIONS)
        bodies = {(headers["webhook-id"], body) for headers, body in receiver.received}
        assert len(bodies) == len(ids)


async def talk(demo: Outsider, numbers: range, **properties: Any) -> list[str]:
    """Publish messages of several conversations by turns; returns their ids in order."""
    lines = [(conversation, number) for number in numbers for conversation in CONVERSATIONS]
    return [
        await demo.publish(
            demo.command("relay.v1", RELAY | {"message": f"{number}", "conversation_id": conversation}, **properties)
        )
        for conversation, number in lines
    ]


async def deliver_to(receiver: Receiver, stage: Stage, demo: Outsider) -> str:
    """Have this publisher's messages delivered; returns the secret that signs them."""
    return await add_target(stage.services.postgres_url("ish_ops"), demo.name, "receiver", receiver.url, rules=LOCAL)


def verified(receiver: Receiver, secret: str) -> list[dict[str, Any]]:
    """What the webhooks say, in order of arrival; each must be signed."""
    return [Webhook(secret).verify(body, headers)["data"] for headers, body in receiver.received]


def assert_in_order(events: list[dict[str, Any]]) -> None:
    """Within each conversation as they were published, which is as they were accepted."""
    for conversation in CONVERSATIONS:
        arrived = [event for event in events if event["conversation_id"] == conversation]
        assert [event["message"] for event in arrived] == [str(number) for number in range(MESSAGES)]
        accepted = [event["accepted_at"] for event in arrived]
        assert accepted == sorted(accepted)


async def all_delivered(stage: Stage, demo: Outsider, count: int) -> bool:
    rows = await stage.records.rows(
        "select state, count(*) from deliveries where publisher = $1 group by state", demo.name
    )
    return rows == [{"state": "delivered", "count": count}]


async def as_stored(stage: Stage, demo: Outsider, ids: list[str]) -> None:
    """Each command is answered with the bytes that are on record."""
    await until("the replies arrive", lambda: demo.answered(ids))
    commands = await stage.records.commands(demo.name)
    for id_ in ids:
        assert set(demo.replies[id_]) == {commands[id_]["result"].encode()}
        assert json.loads(commands[id_]["result"])["status"] == "succeeded"


async def nothing_to_send(stage: Stage, account: Account) -> bool:
    return not await stage.records.rows("select 1 from outbox where publisher = $1", account.name)


async def added_again(stage: Stage, account: Account) -> Account:
    """What an operator does about a reply queue that is gone: `ish publishers add`, once more."""
    administrator = stage.services.amqp_url("admin")
    password = await add_publisher(stage.services.management_url, account.name, amqp_url_for_admin=administrator)
    return Account(account.name, with_login(administrator, account.name, password))
