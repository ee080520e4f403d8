"""Outside publishers can do what they are made for and nothing else."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import aio_pika
import aiormq
import asyncpg
import pytest
from typer.testing import CliRunner

from contracts.amqp.broker import connect
from contracts.topology import COMMANDS, RELAY, REPLIES, ROLES, UNROUTED, WORK_QUEUES, reply_queue, topology
from ops.admin import publishers, topology_state
from ops.admin.rabbitmq_management import Management, ManagementError
from ops.cli import topology as topology_cli
from ops.stack.addresses import with_login
from ops.stack.session import Session

REFUSED = (aiormq.ChannelAccessRefused, aiormq.ConnectionNotAllowed)


async def add(services: Session, name: str, kinds: list[str] | None = None) -> str:
    """Make a publisher; returns its AMQP address."""
    password = await publishers.add_publisher(
        services.management_url, name, kinds=kinds, amqp_url_for_admin=services.amqp_url("admin")
    )
    return with_login(services.amqp_url("admin"), name, password)


@pytest.fixture
def name() -> str:
    return f"p{uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
async def nothing_left(services: Session) -> AsyncIterator[None]:
    """Other tests share the queues."""
    yield
    async with await connect(services.amqp_url("admin"), name="test") as connection:
        channel = await connection.channel()
        for queue in (*WORK_QUEUES, UNROUTED):
            await (await channel.get_queue(queue, ensure=False)).purge()


async def publish(url: str, *, key: str = "relay", exchange: str = COMMANDS, user_id: str | None = None) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        message = aio_pika.Message(b"{}", message_id=str(uuid4()), user_id=user_id, delivery_mode=2)
        await target.publish(message, routing_key=key, timeout=10)


async def consume(url: str, queue: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await (await channel.get_queue(queue, ensure=False)).get(fail=False, no_ack=True, timeout=10)


async def declare(url: str, queue: str) -> None:
    async with await aio_pika.connect(url) as connection:
        await (await connection.channel()).declare_queue(queue)


async def test_a_publisher_may_publish_every_kind_and_read_its_replies(services: Session, name: str) -> None:
    url = await add(services, name)

    for key in ("relay", "ai.send", "ai.send.batch", "android.execute", "android.execute.phone1"):
        await publish(url, key=key, user_id=name)
    await publish(services.amqp_url("worker"), key=reply_queue(name), exchange=REPLIES)
    await consume(url, reply_queue(name))

    assert await depth(services, reply_queue(name)) == 0


@pytest.mark.parametrize(
    ("attempt"),
    [
        lambda url, _: publish(url, exchange=REPLIES, key="reply.gateway.x"),
        lambda url, _: publish(url, exchange="", key=RELAY),
        lambda url, _: publish(url, exchange="ish.results", key="relay.succeeded"),
        lambda url, _: publish(url, user_id="gateway"),
        lambda url, _: publish(url, key="secrets"),
        lambda url, _: consume(url, RELAY),
        lambda url, other: consume(url, reply_queue(other)),
        lambda url, name: declare(url, f"{name}.mine"),
    ],
    ids=["other replies", "queues", "results", "another user", "other keys", "commands", "others' replies", "declare"],
)
async def test_a_publisher_may_do_nothing_else(
    services: Session, name: str, attempt: Callable[[str, str], Awaitable[None]]
) -> None:
    url, other = await add(services, name), f"{name}x"
    await add(services, other)

    with pytest.raises((*REFUSED, aiormq.ChannelPreconditionFailed)):
        await attempt(url, other)


async def test_a_publisher_of_one_kind_may_not_publish_another(services: Session, name: str) -> None:
    url = await add(services, name, ["ai.send"])

    await publish(url, key="ai.send")
    with pytest.raises(REFUSED):
        await publish(url, key="relay")

    (one,) = [one for one in await publishers.list_publishers(services.management_url) if one.name == name]
    assert one.kinds == ("ai.send", "ai.send.batch")


async def test_adding_again_gives_a_new_password_and_keeps_the_replies(services: Session, name: str) -> None:
    old = await add(services, name)
    await publish(services.amqp_url("worker"), key=reply_queue(name), exchange=REPLIES)

    new = await add(services, name)

    await publish(new)
    with pytest.raises(aiormq.ProbableAuthenticationError):
        await publish(old)
    assert await depth(services, reply_queue(name)) == 1


async def test_a_removed_publisher_cannot_log_in_and_its_unread_replies_stay_until_asked_for(
    services: Session, name: str
) -> None:
    url = await add(services, name)
    await publish(services.amqp_url("worker"), key=reply_queue(name), exchange=REPLIES)

    assert await remove(services, name) == 1

    with pytest.raises(aiormq.ProbableAuthenticationError):
        await publish(url)
    await add(services, name)
    assert await remove(services, name, replies=True) is None
    with pytest.raises(ValueError, match="no publisher"):
        await remove(services, name)


@pytest.mark.parametrize("bad", ["gateway", "admin", "ish", "Upper", "9lives", "a" * 64, "", "a.b", "a*"])
async def test_a_name_that_is_ours_or_breaks_the_rule_is_refused(services: Session, bad: str) -> None:
    with pytest.raises(ValueError, match="a publisher's name"):
        await add(services, bad)


async def test_an_unknown_kind_is_refused(services: Session, name: str) -> None:
    with pytest.raises(ValueError, match=r"kinds are .*; not fax"):
        await add(services, name, ["fax"])


async def test_a_user_without_the_right_gets_one_sentence_without_a_password(services: Session, name: str) -> None:
    ops_url = services.addresses.management_by_user["ops"]

    with pytest.raises(ManagementError, match="as ops refuses: an administrator is needed") as caught:
        await publishers.add_publisher(ops_url, name, amqp_url_for_admin=services.amqp_url("admin"))

    assert ops_url.split(":")[2].split("@")[0] not in str(caught.value)


async def test_our_own_users_are_made_with_their_rights(services: Session) -> None:
    passwords = {user: secrets.token_urlsafe(16) for user in ROLES}
    kept = {user: unquote(urlsplit(services.amqp_url(user)).password or "") for user in ROLES}
    try:
        await publishers.apply_users(services.management_url, passwords)

        url = with_login(services.amqp_url("admin"), "worker", passwords["worker"])
        await publish(url, exchange=REPLIES, key="nobody")
        with pytest.raises(REFUSED):
            await declare(url, "mine")
        async with Management(services.management_url) as api:
            assert await topology_state.rights_differences(api) == []
    finally:
        await publishers.apply_users(services.management_url, kept)


async def test_the_topology_as_applied_has_no_differences_and_a_changed_one_has(services: Session) -> None:
    async with Management(services.management_url) as api:
        assert topology_state.differences(topology(), await topology_state.find(api)) == []
        other = topology_state.differences(topology(5000), await topology_state.find(api))

    assert f"~ queue {RELAY}: x-max-length is 2000000, should be 5000" in other


async def remove(services: Session, name: str, *, replies: bool = False) -> int | None:
    """Remove a publisher."""
    return await publishers.remove_publisher(
        services.management_url, name, replies=replies, amqp_url_for_admin=services.amqp_url("admin")
    )


async def depth(services: Session, queue: str) -> int | None:
    """Messages ready in a queue."""
    async with await connect(services.amqp_url("admin"), name="test") as connection:
        found = await (await connection.channel()).declare_queue(queue, passive=True)
        return found.declaration_result.message_count


async def test_a_deleted_reply_queue_is_seen_and_made_again_without_a_new_password(
    services: Session, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, queue = await add(services, name), reply_queue(name)
    monkeypatch.setenv("ISH_RABBITMQ_MANAGEMENT_URL", services.management_url)
    monkeypatch.setenv("ISH_AMQP_URL", services.amqp_url("admin"))
    monkeypatch.setenv("ISH_POSTGRES_URL", services.postgres_url("ish_ops"))
    async with await connect(services.amqp_url("admin"), name="test") as connection:
        await (await connection.channel()).queue_delete(queue)

    seen = await asyncio.to_thread(CliRunner().invoke, topology_cli.app, ["verify"])
    made = await asyncio.to_thread(CliRunner().invoke, topology_cli.app, ["apply"])

    assert seen.exit_code == 1
    assert f"+ queue {queue}\n" in seen.output
    assert f"+ binding {REPLIES} -> {queue} by '{queue}'\n" in seen.output
    assert made.output == f"made {queue}\n"
    await publish(services.amqp_url("worker"), key=queue, exchange=REPLIES)
    await consume(url, queue)  # with the password that it had
    async with Management(services.management_url) as api:
        found = await topology_state.find(api)
    assert topology_state.differences(publishers.reply_topology(name), found) == []


async def test_kinds_are_recorded_for_workers_and_taken_over_from_publishers_made_before(
    services: Session, name: str
) -> None:
    ops_url, old = services.postgres_url("ish_ops"), f"{name}old"
    await add(services, old, ["relay"])
    await publishers.add_publisher(
        services.management_url,
        name,
        kinds=["ai.send"],
        amqp_url_for_admin=services.amqp_url("admin"),
        postgres_url=ops_url,
    )

    await publishers.restore_publishers(
        services.management_url, amqp_url_for_admin=services.amqp_url("admin"), postgres_url=ops_url
    )

    assert await recorded(services, name, old) == {name: ["ai.send", "ai.send.batch"], old: ["relay"]}
    await publishers.remove_publisher(
        services.management_url, name, amqp_url_for_admin=services.amqp_url("admin"), postgres_url=ops_url
    )
    assert await recorded(services, name, old) == {old: ["relay"]}


async def recorded(services: Session, *names: str) -> dict[str, list[str]]:
    """What workers know of these publishers."""
    connection = await asyncpg.connect(services.postgres_url("ish_worker"))
    try:
        rows = await connection.fetch("select name, routing_keys from publishers where name = any ($1)", names)
    finally:
        await connection.close()
    return {row["name"]: row["routing_keys"] for row in rows}
