"""Results and follow-ups that nobody confirmed reach their queues, or become dead letters."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from contracts.amqp.broker import connect
from contracts.topology import AI, AI_BATCH, RELAY, RESULTS
from ops.stack.session import Session
from tests.integration.outbox_stand import RELAY_BODY, Stand, stand, until
from workers.outbox.relay import Resend

ASK_BODY = b'{"prompt":"and then?"}'


@pytest.fixture
async def bench(services: Session) -> AsyncIterator[Stand]:
    async with stand(services) as one:
        yield one


def job(bench: Stand, *, give_up_seconds: float = 86400) -> Resend:
    return Resend(bench.database, bench.publisher, user="outbox", after_seconds=5, give_up_seconds=give_up_seconds)


async def test_an_old_result_is_sent_with_its_event_and_its_row_leaves(bench: Stand) -> None:
    await bench.make_reply_queue()
    id_ = await bench.unsent(body=b'{"status":"succeeded","output":{}}')
    async with await connect(bench.services.amqp_url("admin"), name="listener") as connection:
        events = await (await connection.channel()).declare_queue(exclusive=True)
        await events.bind(RESULTS, routing_key="relay.succeeded")

        await job(bench).round()

        event = await until("the event is there", lambda: _matching(events, str(id_)))
    reply = await bench.take(bench.reply_to)
    assert reply is not None
    assert (reply.message_id, reply.correlation_id, reply.type) == (str(id_), "c-1", "relay.result.v1")
    assert reply.body == event.body == b'{"status":"succeeded","output":{}}'
    assert await bench.outbox_rows() == []


async def test_a_young_result_is_left_to_its_worker(bench: Stand) -> None:
    await bench.make_reply_queue()
    await bench.unsent(age=timedelta(seconds=1))

    await job(bench).round()

    assert len(await bench.outbox_rows()) == 1
    assert await bench.take(bench.reply_to) is None


async def test_a_follow_up_is_published_as_a_command_of_its_publisher(bench: Stand) -> None:
    await bench.purge(RELAY)
    id_ = await bench.unsent(status=None, part=1, body=RELAY_BODY, reply=False)

    await job(bench).round()

    message = await bench.take(RELAY)
    assert message is not None
    assert (message.message_id, message.type, message.user_id) == (str(id_), "relay.v1", "outbox")
    assert message.headers["x-publisher"] == message.headers["x-owner"] == bench.name
    assert await bench.outbox_rows() == []


async def test_a_follow_up_that_is_sent_again_keeps_its_priority(bench: Stand) -> None:
    await bench.purge(AI, AI_BATCH)
    id_ = await bench.unsent(status=None, part=1, kind="ai.send", body=ASK_BODY, reply=False, priority="batch")

    await job(bench).round()

    message = await bench.take(AI_BATCH)
    assert message is not None
    assert (message.message_id, message.headers["x-priority"]) == (str(id_), "batch")
    assert await bench.depth(AI) == 0


async def test_a_missing_reply_queue_postpones_and_a_new_one_gets_the_reply(bench: Stand) -> None:
    await bench.unsent()
    resend = job(bench)

    await resend.round()

    (row,) = await bench.outbox_rows()
    assert row["tries"] == 1
    assert row["not_before"] > row["created_at"] + timedelta(seconds=60)
    await bench.make_reply_queue()
    await bench.owner.execute("update outbox set not_before = now() where publisher = $1", bench.name)
    await resend.round()
    assert await bench.take(bench.reply_to) is not None
    assert await bench.outbox_rows() == []


async def test_a_reply_to_a_gateway_that_is_gone_is_dropped_and_its_event_is_sent(bench: Stand) -> None:
    await bench.unsent()
    await bench.owner.execute("update outbox set reply_to = 'reply.gateway.gone' where publisher = $1", bench.name)
    resend = job(bench)

    await resend.round()

    (row,) = await bench.outbox_rows()
    assert row["reply_to"] is None
    await bench.owner.execute("update outbox set not_before = now() where publisher = $1", bench.name)
    await resend.round()
    assert await bench.outbox_rows() == []


async def test_a_full_reply_queue_postpones_without_losing_what_is_in_it(bench: Stand) -> None:
    await bench.make_reply_queue(**{"x-max-length": 1, "x-overflow": "reject-publish"})
    for _ in range(5):
        await bench.unsent()
    resend = job(bench)

    async def drained() -> bool:
        await bench.owner.execute("update outbox set not_before = now() where publisher = $1", bench.name)
        await resend.round()
        while await bench.take(bench.reply_to) is not None:
            pass
        return not await bench.outbox_rows()

    await until("all replies got through, one at a time", drained)


async def test_a_reply_nobody_takes_for_a_day_becomes_an_undeliverable_dead_letter(bench: Stand) -> None:
    id_ = await bench.unsent(age=timedelta(days=2), body=b'{"status":"succeeded"}')

    await job(bench).round()

    (letter,) = await bench.dead_letters()
    assert (letter["reason"], letter["message_id"], letter["reply_to"]) == ("undeliverable", str(id_), bench.reply_to)
    assert letter["body"] == b'{"status":"succeeded"}'
    assert await bench.outbox_rows() == []


async def test_two_outbox_workers_send_each_result_once(bench: Stand) -> None:
    await bench.make_reply_queue()
    ids = {str(await bench.unsent()) for _ in range(60)}

    await asyncio.gather(*(job(bench).round() for _ in range(4)))

    received = []
    while (message := await bench.take(bench.reply_to)) is not None:
        received.append(message.message_id)
    assert sorted(received, key=str) == sorted(ids)


async def test_a_row_that_cannot_be_sent_fails_alone(bench: Stand) -> None:
    await bench.make_reply_queue()
    bad = await bench.unsent()
    good = [await bench.unsent() for _ in range(3)]
    await bench.owner.execute("update outbox set kind = 'fax' where id = $1", bad)

    await job(bench).round()

    (row,) = await bench.outbox_rows()
    assert row["id"] == bad
    received = [await bench.take(bench.reply_to) for _ in good]
    assert {str(one.message_id) for one in received if one} == {str(id_) for id_ in good}


async def test_a_result_just_written_is_sent_at_once_on_request(bench: Stand) -> None:
    await bench.make_reply_queue()
    await bench.unsent(age=timedelta(0))
    (row,) = await bench.outbox_rows()

    await job(bench).send_now([row["token"]])

    assert await bench.take(bench.reply_to) is not None
    assert await bench.outbox_rows() == []


async def _matching(queue: Any, message_id: str) -> Any:
    message = await queue.get(fail=False, no_ack=True)
    return message if message is not None and message.message_id == message_id else None
