"""Commands that no worker holds are ended with a reply: dead-lettered by the broker, unroutable, or overdue."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import aiormq
import orjson
import pytest

from contracts.amqp.broker import connect
from contracts.topology import COMMANDS, DEAD, RELAY, UNROUTED
from ops.admin.publishers import add_publisher
from ops.stack.addresses import with_login
from ops.stack.session import Session
from tests.integration.outbox_stand import RELAY_BODY, TAP_BODY, Stand, stand, until
from workers.outbox.repair.expiry import Expire

LONG_AGO = timedelta(minutes=-5)


@pytest.fixture
async def bench(services: Session) -> AsyncIterator[Stand]:
    async with stand(services) as one:
        yield one


@pytest.fixture
async def outsider(bench: Stand) -> str:
    """AMQP address of this test's publisher, who has a reply queue."""
    password = await add_publisher(
        bench.services.management_url, bench.name, amqp_url_for_admin=bench.services.amqp_url("admin")
    )
    return with_login(bench.services.amqp_url("admin"), bench.name, password)


async def publish(
    bench: Stand,
    url: str,
    *,
    key: str = "relay",
    body: bytes = RELAY_BODY,
    type_: str = "relay.v1",
    headers: dict[str, Any] | None = None,
    **properties: Any,
) -> UUID:
    """Publish as a foreign client would, without any of our code."""
    id_ = uuid4()
    values = {"message_id": str(id_), "user_id": bench.name, "reply_to": bench.reply_to, "correlation_id": "c-9"}
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(COMMANDS, ensure=False)
        await exchange.publish(
            aio_pika.Message(body, type=type_, delivery_mode=2, headers=headers or {}, **{**values, **properties}),
            routing_key=key,
        )
    return id_


async def give_up_on(bench: Stand, queue: str, count: int = 1) -> None:
    """Let the broker dead-letter messages of a work queue, as it does at the delivery limit."""
    async with await connect(bench.services.amqp_url("admin"), name="test") as connection:
        channel = await connection.channel()
        found = await channel.get_queue(queue, ensure=False)
        for _ in range(count):
            message = await until("the message is in its queue", lambda: found.get(fail=False))
            await message.reject(requeue=False)


async def reply(bench: Stand) -> dict[str, Any]:
    message = await until("the reply is there", lambda: bench.take(bench.reply_to))
    assert message.correlation_id in {"c-1", "c-9"}
    return dict(orjson.loads(message.body))


async def test_a_dead_lettered_command_nobody_recorded_ends_as_failed_and_its_publisher_is_told(
    bench: Stand, outsider: str
) -> None:
    await bench.purge(RELAY)
    id_ = await publish(bench, outsider)
    await give_up_on(bench, RELAY)

    async with bench.running():
        answer = await reply(bench)

    assert (answer["command_id"], answer["status"], answer["attempts"]) == (str(id_), "failed", 0)
    (letter,) = await bench.dead_letters()
    assert (letter["message_id"], letter["queue"], letter["routing_key"]) == (str(id_), RELAY, "relay")
    assert letter["body"] == RELAY_BODY
    assert (await bench.row(id_))["state"] == "failed"
    assert await bench.depth(DEAD) == 0


async def test_a_dead_lettered_command_that_has_ended_keeps_its_result(bench: Stand, outsider: str) -> None:
    await bench.purge(RELAY)
    id_ = await publish(bench, outsider)
    await _record_like(bench, id_, "succeeded")
    await give_up_on(bench, RELAY)

    async with bench.running():
        await until("it is a dead letter", bench.dead_letters)

    assert (await bench.row(id_))["state"] == "succeeded"
    assert await bench.outbox_rows() == []


async def test_a_dead_lettered_command_that_a_living_worker_runs_is_left_to_it(bench: Stand, outsider: str) -> None:
    await bench.purge(RELAY)
    id_ = await publish(bench, outsider)
    holder = await bench.worker(silent_for=timedelta(seconds=-60))
    await _record_like(bench, id_, "running", holder=holder)
    await give_up_on(bench, RELAY)

    async with bench.running():
        await until("it is a dead letter", bench.dead_letters)

    assert (await bench.row(id_))["state"] == "running"


async def test_a_dead_lettered_tap_whose_worker_died_is_indeterminate(bench: Stand, outsider: str) -> None:
    await bench.purge("ish.android")
    id_ = await publish(bench, outsider, key="android.execute", type_="android.execute.v1", body=TAP_BODY)
    holder = await bench.worker(silent_for=timedelta(minutes=5))
    await _record_like(bench, id_, "running", kind="android.execute", body=TAP_BODY, holder=holder, repeatable=False)
    await give_up_on(bench, "ish.android")

    async with bench.running():
        answer = await reply(bench)

    assert answer["status"] == "indeterminate"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"body": b"\xff\x00 no JSON"}, "poison"),
        ({"message_id": "seven"}, "bad_message_id"),
        ({"type_": "relay.v9"}, "unknown_version"),
        ({"type_": "nul\x00"}, "unknown_type"),
        ({"correlation_id": "nul\x00"}, "invalid_header"),
        ({"reply_to": "reply.somebody"}, "foreign_reply_to"),
        ({"headers": {"nul\x00": "nul\x00", "deep": {"a": [{"b": bytearray(b"\xff")}]}}}, "poison"),
    ],
)
async def test_whatever_a_dead_letter_carries_it_is_kept_and_the_next_one_too(
    bench: Stand, outsider: str, fault: dict[str, Any], reason: str
) -> None:
    await bench.purge(RELAY)
    await publish(bench, outsider, **fault)
    await publish(bench, outsider)
    await give_up_on(bench, RELAY, 2)

    async def both() -> Any:
        letters = await bench.dead_letters()
        return letters if len(letters) == 2 else None

    async with bench.running():
        letters = await until("both are dead letters", both)

    assert sorted(letter["reason"] for letter in letters) == sorted([reason, "poison"])
    assert await bench.depth(DEAD) == 0


async def test_a_message_without_a_user_is_kept_without_a_publisher(bench: Stand, outsider: str) -> None:
    await bench.purge(RELAY)
    id_ = await publish(bench, outsider, user_id=None)
    await give_up_on(bench, RELAY)

    async with bench.running():

        async def letter() -> Any:
            return await bench.owner.fetchrow("select * from dead_letters where message_id = $1", str(id_))

        found = await until("it is a dead letter", letter)

    assert (found["reason"], found["publisher"]) == ("no_user_id", None)


async def test_a_key_no_queue_is_bound_for_ends_as_unroutable_and_is_answered(bench: Stand, outsider: str) -> None:
    id_ = await publish(bench, outsider, key="relay.nothere")

    async with bench.running():
        answer = await reply(bench)

    assert (answer["command_id"], answer["status"]) == (str(id_), "failed")
    assert answer["error"]["code"] == "unroutable"
    (letter,) = await bench.dead_letters()
    assert (letter["reason"], letter["routing_key"]) == ("unroutable", "relay.nothere")
    assert await bench.depth(UNROUTED) == 0


async def test_what_came_while_its_queue_was_missing_is_routed_again_with_its_envelope(
    bench: Stand, outsider: str
) -> None:
    await bench.delete(RELAY)
    id_ = await publish(bench, outsider, headers={"x-deadline-ms": int(datetime.now(UTC).timestamp() * 1000) + 60_000})
    assert await until("it is unrouted", lambda: bench.depth(UNROUTED)) == 1

    async with bench.running():
        message = await until("it is in its queue", lambda: _take_if_there(bench, RELAY))

    assert (message.message_id, message.user_id, message.type) == (str(id_), "outbox", "relay.v1")
    assert (message.reply_to, message.correlation_id) == (bench.reply_to, "c-9")
    assert message.headers["x-publisher"] == bench.name
    assert message.headers["x-deadline-ms"] > datetime.now(UTC).timestamp() * 1000
    assert message.body == RELAY_BODY
    assert "x-death" not in message.headers


@pytest.mark.usefixtures("outsider")
@pytest.mark.parametrize("state", ["queued", "retrying"])
async def test_an_overdue_command_expires_and_is_answered(bench: Stand, state: str) -> None:
    id_ = await bench.command(state, attempt=1, deadline=LONG_AGO, accepted=2 * LONG_AGO)

    async with bench.running():
        answer = await reply(bench)

    assert (answer["command_id"], answer["status"]) == (str(id_), "expired")
    assert answer["error"]["code"] == "deadline_passed"
    assert (await bench.row(id_))["state"] == "expired"


@pytest.mark.usefixtures("outsider")
async def test_an_overdue_command_tells_what_it_waited_for(bench: Stand) -> None:
    id_ = await bench.command("retrying", attempt=0, deadline=LONG_AGO, accepted=2 * LONG_AGO)
    await bench.owner.execute("update commands set error_code = 'device_offline' where id = $1", id_)

    async with bench.running():
        answer = await reply(bench)

    assert answer["error"]["details"] == {"last_error": "device_offline"}
    assert "device_offline" in answer["error"]["message"]


@pytest.mark.usefixtures("outsider")
@pytest.mark.parametrize(("repeatable", "status"), [(True, "expired"), (False, "indeterminate")])
async def test_an_overdue_command_of_a_dead_worker_ends(bench: Stand, *, repeatable: bool, status: str) -> None:
    holder = await bench.worker(silent_for=timedelta(minutes=5))
    id_ = await bench.command("running", attempt=1, deadline=LONG_AGO, holder=holder, repeatable=repeatable)

    async with bench.running():
        answer = await reply(bench)

    assert (answer["command_id"], answer["status"]) == (str(id_), status)


async def test_what_is_not_overdue_or_still_run_by_a_living_worker_is_left_alone(bench: Stand) -> None:
    living = await bench.worker(silent_for=timedelta(seconds=-60))
    spared = [
        await bench.command("queued"),
        await bench.command("retrying", attempt=1),
        await bench.command("running", attempt=1, deadline=LONG_AGO, holder=living),
        await bench.command("running", attempt=1, deadline=timedelta(seconds=-30), holder=uuid4()),
    ]
    expire = Expire(bench.database, answer=_nobody, lease_seconds=6)

    await expire.round()

    assert [(await bench.row(id_))["finished_at"] for id_ in spared] == [None] * 4


async def test_two_outbox_workers_expire_each_command_once(bench: Stand) -> None:
    ids = [await bench.command("queued", deadline=LONG_AGO) for _ in range(70)]
    one, other = (Expire(bench.database, answer=_nobody, lease_seconds=6) for _ in range(2))

    async def all_ended() -> bool:
        await one.round()
        await other.round()
        return all([await bench.has_ended(id_) for id_ in ids])

    await until("all have ended", all_ended)

    assert len(await bench.outbox_rows()) == 70


async def test_a_command_that_cannot_be_ended_does_not_hold_up_those_behind_it(bench: Stand) -> None:
    bad = await bench.command("queued", deadline=2 * LONG_AGO)
    ids = [await bench.command("queued", deadline=LONG_AGO) for _ in range(3)]
    await bench.owner.execute(f"""
        create function refuse_end() returns trigger language plpgsql as $$
        begin if new.id = '{bad}' then raise exception 'not this one'; end if; return new; end $$;
        create trigger refuse_end before update on commands for each row execute function refuse_end();
    """)
    expire = Expire(bench.database, answer=_nobody, lease_seconds=6)

    try:
        await expire.round()
        await expire.round()
    finally:
        await bench.owner.execute("drop trigger refuse_end on commands; drop function refuse_end()")

    assert [(await bench.row(id_))["state"] for id_ in (bad, *ids)] == ["queued", "expired", "expired", "expired"]


async def _nobody(_: object) -> None:
    """Answers nobody."""


async def _take_if_there(bench: Stand, queue: str) -> Any:
    try:
        return await bench.take(queue)
    except aio_pika.exceptions.ChannelNotFoundEntity:
        return None
    except aiormq.exceptions.ConnectionInternalError as error:
        if "noproc" not in str(error):
            raise
        return None  # it is declared, and its process is not there yet


async def _record_like(
    bench: Stand,
    id_: UUID,
    state: str,
    *,
    kind: str = "relay",
    body: bytes = RELAY_BODY,
    holder: UUID | None = None,
    repeatable: bool = True,
) -> None:
    """Record a command as a worker would have, under an id that was published."""
    made = await bench.command(state, kind=kind, body=body, attempt=1, holder=holder, repeatable=repeatable)
    await bench.owner.execute("update commands set id = $2 where id = $1", made, id_)
    await bench.owner.execute("update command_keys set id = $2 where id = $1", made, id_)
    if state == "succeeded":
        await bench.owner.execute("update commands set finished_at = now(), result = '{}' where id = $1", id_)
