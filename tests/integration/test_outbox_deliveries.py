"""Webhooks: signed, in order within a conversation, tried again, given up, and never sent where they must not go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from standardwebhooks import Webhook

from ops.admin.targets import add_target, list_targets, remove_target
from ops.stack.session import Session
from tests.integration.outbox_stand import Stand, stand, until
from tests.integration.webhook_receiver import Receiver, receiving
from workers.outbox.webhooks.addresses import Rules
from workers.outbox.webhooks.delivery import Deliveries
from workers.outbox.webhooks.sending import Webhooks

LOCAL = Rules(allow_http=True, allow_private=True)


@pytest.fixture
async def bench(services: Session) -> AsyncIterator[Stand]:
    async with stand(services) as one:
        yield one


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@asynccontextmanager
async def job(bench: Stand, *, rules: Rules = LOCAL, give_up_seconds: float = 86400) -> AsyncIterator[Deliveries]:
    async with Webhooks(rules) as webhooks, asyncio.TaskGroup() as group:
        deliveries = Deliveries(bench.database, webhooks, give_up_seconds=give_up_seconds)
        task = group.create_task(deliveries.run())
        try:
            yield deliveries
        finally:
            await deliveries.drain(30)
            task.cancel()


async def make_target(bench: Stand, url: str, name: str = "t") -> str:
    return await add_target(bench.services.postgres_url("ish_ops"), bench.name, name, url, rules=LOCAL)


async def message(
    bench: Stand, text: str, *, conversation: str = "c", accepted: timedelta = timedelta(0), target: str = "t"
) -> UUID:
    """Record a message and its delivery, as a worker does."""
    id_, at = uuid4(), datetime.now(UTC) + accepted
    await bench.owner.execute(
        "insert into messages values ($1, $2, 0, $1, $3, 'user', $4, '{\"k\": 1}', $5, $5)",
        bench.name,
        id_,
        conversation,
        text,
        at,
    )
    await bench.owner.execute(
        "insert into deliveries (target_id, owner, conversation_id, publisher, command_id, position, accepted_at) "
        "select id, $1, $2, $1, $3, 0, $4 from targets where owner = $1 and name = $5",
        bench.name,
        conversation,
        id_,
        at,
        target,
    )
    return id_


async def states(bench: Stand) -> dict[str, int]:
    rows = await bench.owner.fetch("select state, count(*) from deliveries where owner = $1 group by state", bench.name)
    return {row["state"]: row["count"] for row in rows}


async def rounds_until(deliveries: Deliveries, what: str, condition: Any) -> None:
    async def so() -> bool:
        await deliveries.round()
        return bool(await condition())

    await until(what, so)


async def make_due(bench: Stand) -> None:
    await bench.owner.execute(
        "update deliveries set not_before = now() where owner = $1 and state = 'pending'", bench.name
    )


async def test_a_delivery_is_signed_as_standard_webhooks_say_and_carries_the_message(
    bench: Stand, receiver: Receiver
) -> None:
    secret = await make_target(bench, receiver.url)
    id_ = await message(bench, "hello")

    async with job(bench) as deliveries:
        await rounds_until(deliveries, "delivered", lambda: _has(bench, delivered=1))

    headers, body = receiver.received[0]
    event = Webhook(secret).verify(body, headers)
    assert event["type"] == "message.recorded"
    assert event["data"] | {"sent_at": "", "accepted_at": ""} == {
        "conversation_id": "c",
        "sender": "user",
        "message": "hello",
        "metadata": {"k": 1},
        "command_id": str(id_),
        "position": 0,
        "sent_at": "",
        "accepted_at": "",
    }


async def test_a_conversation_is_delivered_one_at_a_time_oldest_first(bench: Stand, receiver: Receiver) -> None:
    await make_target(bench, receiver.url)
    for number in reversed(range(30)):
        await message(bench, str(number), accepted=timedelta(seconds=number - 60))

    async with job(bench) as one, job(bench) as other:

        async def done() -> bool:
            await asyncio.gather(one.round(), other.round())
            return (await states(bench)) == {"delivered": 30}

        await until("all delivered", done)

    assert receiver.texts == [str(number) for number in range(30)]
    assert receiver.most_inside == 1


async def test_an_older_message_recorded_while_a_younger_is_on_its_way_waits_for_its_turn(
    bench: Stand, receiver: Receiver
) -> None:
    await make_target(bench, receiver.url)
    await message(bench, "younger")
    receiver.open.clear()

    async with job(bench) as one, job(bench) as other:
        await rounds_until(one, "the younger is on its way", lambda: _inside(receiver, 1))
        await message(bench, "older", accepted=timedelta(seconds=-60))
        await message(bench, "oldest", accepted=timedelta(seconds=-90))
        for _ in range(5):
            await asyncio.gather(one.round(), other.round())
            await make_due_but_leased(bench)
        assert receiver.texts == ["younger"]
        receiver.open.set()

        async def done() -> bool:
            await asyncio.gather(one.round(), other.round())
            return (await states(bench)) == {"delivered": 3}

        await until("all delivered", done)

    assert receiver.texts == ["younger", "oldest", "older"]
    assert receiver.most_inside == 1


async def test_what_waits_for_a_turn_is_delivered_by_others_when_its_worker_died(
    bench: Stand, receiver: Receiver
) -> None:
    await make_target(bench, receiver.url)
    await message(bench, "first")
    await message(bench, "second", accepted=timedelta(seconds=1))
    receiver.open.clear()
    async with job(bench) as dying:
        await rounds_until(dying, "the first is on its way", lambda: _inside(receiver, 1))
        async with job(bench) as living:
            # as if that worker had died: nobody keeps its turn, and its try is forgotten
            await bench.owner.execute(
                "update delivery_turns set until = now() where target_id in (select id from targets where owner = $1)",
                bench.name,
            )
            await make_due(bench)
            await rounds_until(living, "the first is on its way again", lambda: _inside(receiver, 2))
            receiver.open.set()
            await rounds_until(living, "delivered", lambda: _has(bench, delivered=2))

    assert receiver.texts[-1] == "second"
    assert {headers["webhook-id"] for headers, _ in receiver.received[:2]} == {receiver.received[0][0]["webhook-id"]}
    assert not await bench.owner.fetch("select from delivery_turns")


async def make_due_but_leased(bench: Stand) -> None:
    """What is parked is looked at again."""
    await bench.owner.execute(
        "update deliveries set not_before = now() where owner = $1 and state = 'pending' and tries = 0", bench.name
    )


async def _inside(receiver: Receiver, count: int) -> bool:
    return receiver.inside == count


async def test_conversations_go_in_parallel_but_one_target_never_has_all_the_slots(
    bench: Stand, receiver: Receiver
) -> None:
    await make_target(bench, receiver.url)
    for number in range(30):
        await message(bench, str(number), conversation=f"c{number}")
    receiver.open.clear()

    async with job(bench) as deliveries:

        async def several() -> bool:
            await deliveries.round()
            return receiver.inside >= 10

        await until("ten are on their way", several)
        await deliveries.round()
        assert deliveries.in_flight == 10
        receiver.open.set()
        await rounds_until(deliveries, "all delivered", lambda: _has(bench, delivered=30))


async def test_a_failure_holds_back_its_conversation_only_and_is_tried_again_under_the_same_id(
    bench: Stand, receiver: Receiver
) -> None:
    await make_target(bench, receiver.url)
    await message(bench, "first", conversation="a")
    await message(bench, "second", conversation="a", accepted=timedelta(milliseconds=5))
    receiver.answers = [500]

    async with job(bench) as deliveries:
        await rounds_until(deliveries, "one try was made", lambda: _length(receiver, 1))
        await message(bench, "elsewhere", conversation="b")
        await rounds_until(deliveries, "the other conversation goes on", lambda: _has(bench, delivered=1))
        assert receiver.texts == ["first", "elsewhere"]
        await make_due(bench)
        await rounds_until(deliveries, "all delivered", lambda: _has(bench, delivered=3))

    assert receiver.texts == ["first", "elsewhere", "first", "second"]
    first, again = receiver.received[0], receiver.received[2]
    assert first[0]["webhook-id"] == again[0]["webhook-id"]
    assert first[1] == again[1]


async def test_a_busy_target_is_given_the_time_it_asks_for(bench: Stand, receiver: Receiver) -> None:
    await make_target(bench, receiver.url)
    await message(bench, "hello")
    receiver.answers, receiver.headers = [503], {"Retry-After": "1800"}

    async with job(bench) as deliveries:
        await rounds_until(deliveries, "the failure is recorded", lambda: _problem(bench))

    row = await bench.owner.fetchrow("select * from deliveries where owner = $1", bench.name)
    assert row["last_error"] == "answered 503"
    assert row["not_before"] > datetime.now(UTC) + timedelta(minutes=25)


async def test_a_gone_target_and_an_old_message_are_given_up_and_the_next_goes_on(
    bench: Stand, receiver: Receiver
) -> None:
    await make_target(bench, receiver.url)
    await message(bench, "too old", accepted=timedelta(days=-2))
    await message(bench, "gone", accepted=timedelta(days=-1))
    await message(bench, "fine")
    receiver.answers = [500, 410]

    async with job(bench, give_up_seconds=86400 * 1.5) as deliveries:
        await rounds_until(deliveries, "settled", lambda: _has(bench, abandoned=2, delivered=1))

    assert receiver.texts == ["too old", "gone", "fine"]


async def test_a_redirect_is_a_failure_and_is_not_followed(bench: Stand, receiver: Receiver) -> None:
    await make_target(bench, receiver.url)
    await message(bench, "hello")
    receiver.answers, receiver.headers = [302], {"Location": receiver.url}

    async with job(bench) as deliveries:
        await rounds_until(deliveries, "the failure is recorded", lambda: _problem(bench))

    assert len(receiver.received) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_address_of_our_own_network_is_never_connected_to(bench: Stand, receiver: Receiver, host: str) -> None:
    await make_target(bench, receiver.url.replace("127.0.0.1", host))
    await message(bench, "hello")

    async with job(bench, rules=Rules(allow_http=True)) as deliveries:
        await rounds_until(deliveries, "the failure is recorded", lambda: _problem(bench))

    assert receiver.received == []
    problem = await bench.owner.fetchval("select last_error from deliveries where owner = $1", bench.name)
    assert "public address" in problem


async def test_a_removed_target_gets_nothing_more_and_its_name_can_be_used_again(
    bench: Stand, receiver: Receiver
) -> None:
    ops_url = bench.services.postgres_url("ish_ops")
    first_secret = await make_target(bench, receiver.url)
    await message(bench, "hello")
    assert await remove_target(ops_url, bench.name, "t")

    async with job(bench) as deliveries:
        await rounds_until(deliveries, "abandoned", lambda: _has(bench, abandoned=1))

    assert receiver.received == []
    assert await list_targets(ops_url, bench.name) == []
    assert await make_target(bench, receiver.url) != first_secret
    with pytest.raises(ValueError, match="has a target"):
        await make_target(bench, receiver.url)


async def test_what_a_dead_outbox_worker_had_taken_is_delivered_by_another_when_its_lease_ends(
    bench: Stand, receiver: Receiver
) -> None:
    await make_target(bench, receiver.url)
    await message(bench, "hello")
    await bench.owner.execute(
        "update deliveries set tries = 1, not_before = now() + interval '1 second' where owner = $1", bench.name
    )

    async with job(bench) as deliveries:
        await rounds_until(deliveries, "delivered", lambda: _has(bench, delivered=1))

    assert receiver.texts == ["hello"]


async def test_a_long_queue_behind_a_target_that_is_down_is_parked_until_its_first_is_due(
    bench: Stand, receiver: Receiver
) -> None:
    await make_target(bench, receiver.url)
    for number in range(50):
        await message(bench, str(number), accepted=timedelta(milliseconds=number))
    receiver.answers = [500]

    async with job(bench) as deliveries:
        await rounds_until(deliveries, "the failure is recorded", lambda: _problem(bench))

        async def parked() -> bool:
            await deliveries.round()
            due = await bench.owner.fetchval(
                "select count(*) from deliveries where owner = $1 and not_before <= now() + interval '2 seconds'",
                bench.name,
            )
            return bool(due == 0)

        await until("none of them is due", parked)
        await make_due(bench)
        await rounds_until(deliveries, "all delivered", lambda: _has(bench, delivered=50))

    assert receiver.texts == ["0", *map(str, range(50))]


async def _has(bench: Stand, **wanted: int) -> bool:
    found = await states(bench)
    return all(found.get(state) == count for state, count in wanted.items())


async def _length(receiver: Receiver, count: int) -> bool:
    return len(receiver.received) == count


async def _problem(bench: Stand) -> Any:
    return await bench.owner.fetchval(
        "select last_error from deliveries where owner = $1 and last_error is not null limit 1", bench.name
    )
