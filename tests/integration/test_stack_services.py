"""The stack's services: who may do what, who may reach them, and what a restart keeps."""

from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import aiormq
import httpx
import psycopg
import pytest

from contracts import topology
from contracts.amqp import broker
from ops.stack.addresses import with_login
from ops.stack.probes import redis_answers
from ops.stack.session import Session


def management(url: str, path: str) -> httpx.Response:
    parts = urlsplit(url)
    login = (parts.username or "", parts.password or "")
    return httpx.get(f"http://{parts.hostname}:{parts.port}/api/{path}", auth=login, timeout=10, trust_env=False)


def listening_addresses() -> dict[int, set[str]]:
    """Local addresses of listening sockets, hexadecimal as the kernel prints them, by port."""
    found: dict[int, set[str]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, status, *_ = line.split()
            if status == "0A":
                address, port = local.split(":")
                found.setdefault(int(port, 16), set()).add(address)
    return found


def test_everything_listens_on_loopback_only(services: Session) -> None:
    ports = services.layout.ports
    found = listening_addresses()
    loopback = {"0100007F", "00000000000000000000000001000000"}

    for port in (
        ports.postgres,
        ports.redis,
        ports.amqp,
        ports.management,
        ports.broker_metrics,
        ports.epmd,
        ports.adb,
    ):
        assert found[port] <= loopback, port
    assert found[ports.erlang] <= loopback


def test_the_broker_has_our_users_and_no_guest(services: Session) -> None:
    users = management(services.management_url, "users").json()

    assert {user["name"] for user in users} >= {"admin", "gateway", "worker", "outbox", "ops"}
    assert "guest" not in {user["name"] for user in users}


async def test_guest_is_refused(services: Session) -> None:
    with pytest.raises(broker.BrokerAway, match="login refused"):
        await broker.connect(with_login(services.amqp_url("worker"), "guest", "guest"), name="test")


async def test_a_worker_may_not_declare_queues(services: Session) -> None:
    connection = await broker.connect(services.amqp_url("worker"), name="test")
    async with connection:
        channel = await connection.channel()

        with pytest.raises(aiormq.ChannelAccessRefused):
            await channel.declare_queue("mine", durable=True)


async def test_operators_may_look_but_not_manage(services: Session) -> None:
    url = services.addresses.management_by_user["ops"]

    queues = management(url, "queues").json()
    users = management(url, "users")

    assert {"ish.relay", "ish.ai", "ish.android", "ish.dead"} <= {queue["name"] for queue in queues}
    assert users.status_code == httpx.codes.UNAUTHORIZED


def test_no_role_of_a_process_is_a_superuser(services: Session) -> None:
    with psycopg.connect(services.postgres_url("ish_ops")) as connection:
        rows = connection.execute(
            "select rolname, rolsuper or rolcreaterole or rolcreatedb from pg_roles where rolname like 'ish%'"
        ).fetchall()

    assert dict(rows) == dict.fromkeys(("ish_owner", "ish_gateway", "ish_worker", "ish_outbox", "ish_ops"), False)


def test_only_the_owner_changes_tables(services: Session) -> None:
    with (
        psycopg.connect(services.postgres_url("ish_worker")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("create table mine (id int)")


def test_postgres_frees_what_a_gone_client_holds_soon(services: Session) -> None:
    with psycopg.connect(services.postgres_url("ish_worker")) as connection:
        values = {
            name: connection.execute(f"show {name}").fetchone()
            for name in ("idle_in_transaction_session_timeout", "lock_timeout", "client_connection_check_interval")
        }

    assert values == {
        "idle_in_transaction_session_timeout": ("10s",),
        "lock_timeout": ("10s",),
        "client_connection_check_interval": ("500ms",),
    }


def test_redis_wants_its_password(services: Session) -> None:
    assert redis_answers(services.redis_url)
    assert not redis_answers(with_login(services.redis_url, "", "wrong"))
    assert not redis_answers(f"redis://127.0.0.1:{services.layout.ports.redis}/0")


async def test_a_killed_broker_keeps_confirmed_messages(services: Session) -> None:
    async with await broker.connect(services.amqp_url("admin"), name="test") as connection:
        channel = await connection.channel(publisher_confirms=True)
        message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, topology.AI_BATCH)

    services.broker.kill()
    services.broker.start()

    async with await broker.connect(services.amqp_url("admin"), name="test") as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(topology.AI_BATCH, ensure=False)
        kept = await queue.get(timeout=60)
        await kept.ack()
    assert kept.body == b"kept"
