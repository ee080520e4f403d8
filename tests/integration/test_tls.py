"""TLS to every service with an authority of the test's own: each process and command works, or says in one line why not."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import trustme
from typer.testing import CliRunner

from contracts.amqp.broker import BrokerAway, connect
from contracts.redis_client import open_redis
from contracts.topology import DEAD, UNROUTED
from ops.admin.database import DatabaseTrouble
from ops.admin.database import connected as connected_postgres
from ops.admin.rabbitmq_management import Management
from ops.cli.main import app
from ops.stack import accounts, setup
from ops.stack.addresses import Addresses, Given
from ops.stack.services import Services
from tests.acceptance.load import RELAY
from tests.acceptance.outsider import Account, connected
from tests.acceptance.phone_fleet import all_consumed
from tests.acceptance.records import Queues, Records, until
from tests.acceptance.stage import ROOT, Stage
from tests.integration.gateway_process import DEADLINE_SECONDS, free_port
from tests.integration.tls_doors import door, without_tls
from tests.integration.tls_services import TlsSession, server_context, tls_services

PROCESSES = {
    "gateway": ("gateway", ("gateway",)),
    "relay": ("worker", ("workers", "relay")),
    "ai": ("worker", ("workers", "ai")),
    "android": ("worker", ("workers", "android")),
    "outbox": ("outbox", ("workers", "outbox")),
}
"""By name: whose addresses it gets, and what follows `python -m`."""
SERVICES = {
    "ISH_AMQP_URL": "RabbitMQ",
    "ISH_POSTGRES_URL": "PostgreSQL",
    "ISH_REDIS_URL": "Redis",
    "ISH_RABBITMQ_MANAGEMENT_URL": "RabbitMQ's management API",
    "ISH_GATEWAY_URL": "the gateway",
}
COMMANDS = {
    "ISH_AMQP_URL": ("topology", "apply"),
    "ISH_POSTGRES_URL": ("keys", "list"),
    "ISH_RABBITMQ_MANAGEMENT_URL": ("publishers", "list"),
    "ISH_GATEWAY_URL": ("commands", "list"),
}
FAULTS = {
    "unknown authority": ("signed by none that is trusted here", "set ISH_CA_FILE"),
    "expired": ("its certificate has expired", "renew the certificate of"),
    "other name": ("its certificate is for another name", "write a name that the certificate holds into ISH_"),
}


@pytest.fixture(scope="module")
def tls() -> Iterator[TlsSession]:
    with tls_services() as running:
        yield running


@pytest.fixture(scope="module")
def doors(tls: TlsSession) -> Iterator[dict[str, int]]:
    """Ports with a certificate that is not to be trusted, by its fault."""
    past = {"not_before": datetime.now(UTC) - timedelta(days=9), "not_after": datetime.now(UTC) - timedelta(days=1)}
    with (
        door(server_context(trustme.CA(), "127.0.0.1")) as unknown,
        door(server_context(tls.ca, "127.0.0.1", **past)) as expired,
        door(server_context(tls.ca, "elsewhere.example", "127.0.0.9")) as other,
    ):
        yield {"unknown authority": unknown, "expired": expired, "other name": other}


@pytest.fixture
async def stage(tls: TlsSession, tmp_path: Path) -> AsyncIterator[Stage]:
    queues = Queues(tls.amqp_url("admin"), tls.management_url)
    it = Stage(tls, tmp_path, Records(tls.postgres_url("ish_ops")), queues, owner=f"o{uuid4().hex[:8]}")
    try:
        yield it
    finally:
        await it.close()


def ish(variables: dict[str, str], *arguments: str, code: int = 0) -> str:
    """Run a command; returns what it says."""
    ended = CliRunner().invoke(app, arguments, env=variables)
    assert ended.exit_code == code, ended.output
    return ended.output


async def any_consumed(stage: Stage) -> bool:
    phones = [row["serial"] for row in await stage.records.rows("select serial from devices")]
    return bool(phones) and await all_consumed(stage, phones)


def moved(url: str, port: int) -> str:
    """The same address at another port."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}").geturl()


def is_refused(said: str, service: str, port: int, fault: str, url: str) -> None:
    [line] = said.splitlines()
    what, to_do = FAULTS[fault]
    assert line.startswith(f"ish: {service} at 127.0.0.1:{port}")
    assert what in line
    assert to_do in line
    assert (urlsplit(url).password or "no password") not in line


async def test_every_process_serves_over_tls(stage: Stage, tls: TlsSession) -> None:
    provider = await stage.provider()
    client = await stage.gateway()
    outbox = stage.worker("outbox")
    ai = stage.worker("ai", ISH_PROVIDERS_FILE=str(provider.providers_file))
    processes = [outbox, ai, stage.worker("relay"), stage.worker("android")]
    name = f"p{uuid4().hex[:8]}"
    account = Account(name, (await asyncio.to_thread(ish, tls.operator(), "publishers", "add", name)).strip())
    assert "cafile" in account.url

    async with stage.phone() as effects, connected(account) as outsider:
        await until("the phone is consumed", lambda: any_consumed(stage), seconds=180)  # five processes are starting
        ids = [
            await outsider.publish(outsider.command("relay.v1", RELAY)),
            await outsider.publish(outsider.command("ai.send.v1", {"prompt": "hello", "model": "scripted/steady"})),
            await outsider.publish(outsider.command("android.execute.v1", {"action": "tap", "x": 1, "y": 7})),
        ]
        nobodys = await outsider.publish(outsider.command("coffee.v1", {}), key="android.execute.nobody")
        await until("all are answered", lambda: outsider.answered([*ids, nobodys]))
        answers = [
            await client.post("/api/relay", json=RELAY, params={"wait": 30}),
            await client.post("/api/send", json={"prompt": "hi", "model": "scripted/steady"}, params={"wait": 30}),
        ]
        taps = effects.read_text(encoding="utf-8").count('"action": "tap"')

    replies = [outsider.reply(one) for one in ids]
    assert [one["status"] for one in replies] == ["succeeded"] * 3, replies
    assert [answer.json()["status"] for answer in answers] == ["succeeded"] * 2
    assert taps == 1
    lines = outbox.spec.log_file.read_text(encoding="utf-8").splitlines()
    consumers = [line for line in lines if "consumer_started" in line]
    assert [sum(queue in line for line in consumers) for queue in (DEAD, UNROUTED)] == [1, 1]
    for process in processes:
        assert "unreachable" not in process.spec.log_file.read_text(encoding="utf-8")
        assert await stage.stopped(process) == 0


async def test_every_kind_of_command_works_over_tls(stage: Stage, tls: TlsSession) -> None:
    client = await stage.gateway()
    port = urlsplit(str(client.base_url)).port
    sent = (await client.post("/api/relay", json=RELAY)).json()["id"]
    with door(server_context(tls.ca, "localhost"), leads_to=port) as https:
        variables = {**tls.operator(), "ISH_GATEWAY_URL": f"https://localhost:{https}", "ISH_API_KEY": stage.key}

        async def said(*arguments: str) -> str:
            return await asyncio.to_thread(ish, variables, *arguments)

        assert await said("topology", "verify") == "everything is as it should be\n"
        assert await said("topology", "apply") == "nothing was missing\n"
        assert isinstance(json.loads(await said("publishers", "list", "--json")), list)
        assert stage.owner in await said("keys", "list", "--json")
        assert isinstance(json.loads(await said("targets", "list", "--json")), list)
        assert isinstance(json.loads(await said("devices", "list", "--json")), list)
        assert sent in await said("commands", "show", sent)


async def test_a_stack_is_set_up_on_services_with_tls(tls: TlsSession) -> None:
    given = Given(
        tls.amqp_url("admin"), tls.management_url, tls.addresses.postgres_administrator, tls.redis_url, "a", ""
    )
    database = urlsplit(given.postgres_url)._replace(path="/ish").geturl()
    given = Given(given.amqp_url, given.management_url, database, given.redis_url, "a", "")
    addresses = Addresses.of(tls.layout, Services(None, None, None, None), given)

    setup.create_roles(addresses, own_server=False)
    setup.apply_schema(addresses)
    await setup.apply_topology(addresses)
    await accounts.own_users(tls.layout, addresses)
    key = await accounts.api_key(tls.layout, addresses)

    assert key == await accounts.api_key(tls.layout, addresses)
    assert "sslrootcert" in addresses.postgres_by_role["ish_worker"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("setting", COMMANDS)
def test_a_command_refuses_a_certificate_in_one_line(
    tls: TlsSession, doors: dict[str, int], setting: str, fault: str
) -> None:
    variables = {**tls.operator(), "ISH_GATEWAY_URL": "https://127.0.0.1:1", "ISH_API_KEY": "ish_x_y"}
    variables[setting] = moved(variables[setting], doors[fault])

    said = ish(variables, *COMMANDS[setting], code=1)

    is_refused(said, SERVICES[setting], doors[fault], fault, variables[setting])


@pytest.mark.parametrize(
    ("name", "setting", "fault"),
    [
        (name, setting, fault)
        for name in PROCESSES
        for setting, fault in zip(("ISH_AMQP_URL", "ISH_POSTGRES_URL", "ISH_REDIS_URL"), FAULTS, strict=True)
        if (name, setting) != ("outbox", "ISH_REDIS_URL")  # it uses none
    ],
)
def test_a_process_refuses_a_certificate_in_one_line(
    tls: TlsSession, doors: dict[str, int], name: str, setting: str, fault: str
) -> None:
    role, program = PROCESSES[name]
    variables = tls.environment(role)
    url = moved(Path(variables.pop(f"{setting}_FILE")).read_text(encoding="utf-8"), doors[fault])
    variables |= {setting: url, "ISH_GATEWAY_PORT": str(free_port())}

    ended = subprocess.run(
        [sys.executable, "-m", *program],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )

    assert ended.returncode == 1, ended.stderr
    is_refused(ended.stderr, SERVICES[setting], doors[fault], fault, url)


@pytest.mark.parametrize(
    ("setting", "answer", "said"),
    [
        ("ISH_AMQP_URL", b"AMQP\x00\x00\x09\x01", "TLS failed (WRONG_VERSION_NUMBER); does TLS belong on this port?"),
        (
            "ISH_POSTGRES_URL",
            b"N",
            "it offers no TLS, which the address asks for; turn TLS on in PostgreSQL, or correct",
        ),
        (
            "ISH_RABBITMQ_MANAGEMENT_URL",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "TLS failed (WRONG_VERSION_NUMBER); does TLS belong on this port?",
        ),
    ],
)
def test_a_port_without_tls_is_told(tls: TlsSession, setting: str, answer: bytes, said: str) -> None:
    with without_tls(answer) as port:
        variables = {**tls.operator(), setting: moved(tls.operator()[setting], port)}

        line = ish(variables, *COMMANDS[setting], code=1)

    assert line.startswith(f"ish: {SERVICES[setting]} at 127.0.0.1:{port}")
    assert said in line
    assert len(line.splitlines()) == 1


async def test_a_client_shows_its_own_certificate(tls: TlsSession, tmp_path: Path) -> None:
    certificate, key = tmp_path / "client.pem", tmp_path / "client-key.pem"
    leaf = tls.ca.issue_cert("client.example")
    leaf.cert_chain_pems[0].write_to_path(str(certificate))
    leaf.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    asking = server_context(tls.ca, "127.0.0.1")
    asking.verify_mode = ssl.CERT_REQUIRED
    tls.ca.configure_trust(asking)
    ports = tls.layout.ports
    postgres = urlsplit(tls.postgres_url("ish_ops"))._replace(path="/postgres").geturl()

    with (
        door(asking, leads_to=ports.amqp) as amqps,
        door(asking, leads_to=ports.redis) as rediss,
        door(asking, leads_to=ports.management) as https,
    ):
        own = f"certfile={certificate}&keyfile={key}"
        amqp_url, management_url = moved(tls.amqp_url("admin"), amqps), moved(tls.management_url, https)
        redis_url = moved(tls.redis_url, rediss)

        async with await connect(f"{amqp_url}&{own}", name="test"):
            pass
        async with open_redis(f"{redis_url}&ssl_certfile={certificate}&ssl_keyfile={key}") as redis:
            assert await redis.ping()
        async with Management(f"{management_url}&{own}") as api:
            assert await api.get("overview")
        async with connected_postgres(f"{postgres}&sslcert={certificate}&sslkey={key}") as connection:
            assert await connection.fetchval("select 1") == 1
        psycopg.connect(f"{postgres}&sslcert={certificate}&sslkey={key}").close()

        with pytest.raises(BrokerAway):
            await connect(amqp_url, name="test")
        with pytest.raises(DatabaseTrouble, match="valid client certificate"):
            async with connected_postgres(postgres):
                pass


def test_an_authority_that_cannot_be_read_is_told(tls: TlsSession, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("no certificate", encoding="utf-8")

    assert ish({**tls.operator(), "ISH_CA_FILE": str(tmp_path / "gone.pem")}, "keys", "list", code=2) == (
        f"ish: ISH_CA_FILE: there is no file {tmp_path / 'gone.pem'}\n"
    )
    assert ish({**tls.operator(), "ISH_CA_FILE": str(nothing)}, "keys", "list", code=2) == (
        f"ish: ISH_CA_FILE: {nothing} holds no certificate in PEM form\n"
    )


def test_an_authority_that_postgresql_lacks_is_no_missing_database(tmp_path: Path) -> None:
    url = f"postgresql://u:secret@127.0.0.1:{free_port()}/ish?sslmode=verify-full"

    line = ish({"ISH_STATE_DIR": str(tmp_path), "ISH_POSTGRES_URL": url, "HOME": str(tmp_path)}, "keys", "list", code=1)

    assert "root certificate file" in line
    assert line.endswith("check ISH_POSTGRES_URL\n")
    assert "secret" not in line


@pytest.mark.parametrize("setting", ["ISH_AMQP_URL", "ISH_POSTGRES_URL", "ISH_RABBITMQ_MANAGEMENT_URL"])
def test_an_authority_in_an_address_wins(tls: TlsSession, tmp_path: Path, setting: str) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    options = {"ISH_POSTGRES_URL": "&sslrootcert", "ISH_AMQP_URL": "?cafile", "ISH_RABBITMQ_MANAGEMENT_URL": "?cafile"}
    variables = tls.operator()
    gone = tmp_path / "gone.pem"
    wrong = {**variables, setting: f"{variables[setting]}{options[setting]}={tmp_path / 'other.pem'}"}
    missing = {**variables, setting: f"{variables[setting]}{options[setting]}={gone}"}
    right = {**variables, "ISH_CA_FILE": str(tmp_path / "other.pem")}
    right |= {name: f"{variables[name]}{option}={tls.ca_file}" for name, option in options.items()}

    assert "signed by none that is trusted here" in ish(wrong, *COMMANDS[setting], code=1)
    line = ish(missing, *COMMANDS[setting], code=1)
    assert ish(right, *COMMANDS[setting])
    assert line.startswith(f"ish: {SERVICES[setting]} at 127.0.0.1:{urlsplit(variables[setting]).port}")
    assert str(gone) in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("name", PROCESSES)
async def test_a_process_waits_for_a_broker_that_is_away_and_says_which(
    stage: Stage, tls: TlsSession, tmp_path: Path, name: str
) -> None:
    role, program = PROCESSES[name]
    port = free_port()
    away = tmp_path / "amqp"
    away.write_text(moved(tls.bare.amqp_by_user[role], port), encoding="utf-8")

    child = stage.start(
        name, *program, role=role, ISH_AMQP_URL_FILE=str(away), ISH_GATEWAY_PORT=str(free_port()), ISH_LOG_FORMAT="json"
    )

    lines = [json.loads(await stage.line_of(child, "broker_unreachable"))]
    if name == "outbox":  # FastStream has a connection of its own for each
        lines += [json.loads(await stage.line_of(child, f'"job": "{queue}"')) for queue in (DEAD, UNROUTED)]
    said = "it does not answer: connection refused; start RabbitMQ, or correct ISH_AMQP_URL"
    assert {line["error"] for line in lines} == {f"RabbitMQ at 127.0.0.1:{port} as {role}: {said}"}
    assert child.running


async def test_a_process_that_goes_on_without_a_service_says_why(stage: Stage, tls: TlsSession, tmp_path: Path) -> None:
    away = tmp_path / "postgres"
    port = free_port()
    away.write_text(moved(tls.bare.postgres_by_role["ish_worker"], port), encoding="utf-8")

    child = stage.worker("relay", ISH_POSTGRES_URL_FILE=str(away), ISH_LOG_FORMAT="json")

    line = json.loads(await stage.line_of(child, "postgres_unreachable"))
    said = "it does not answer: connection refused; start PostgreSQL, or correct ISH_POSTGRES_URL"
    assert line["error"] == f"PostgreSQL at 127.0.0.1:{port}: {said}"
    assert child.running


async def test_what_the_address_says_beside_tls_is_kept_on_every_connection(
    stage: Stage, tls: TlsSession, tmp_path: Path
) -> None:
    url = tmp_path / "amqp"
    url.write_text(f"{tls.bare.amqp_by_user['outbox']}?heartbeat=17", encoding="utf-8")
    outbox = stage.worker("outbox", ISH_AMQP_URL_FILE=str(url))
    for queue in (DEAD, UNROUTED):
        await stage.line_of(outbox, queue)

    async def heartbeats() -> dict[str, int]:
        async with Management(tls.management_url) as api:
            found = await api.get("connections")
        return {
            one["client_properties"]["connection_name"]: one["timeout"] for one in found if one.get("user") == "outbox"
        }

    async def all_are_known() -> bool:
        return {f"ish {DEAD}", f"ish {UNROUTED}", "ish outbox publisher"} <= set(await heartbeats())

    await until("its connections are known", all_are_known)
    assert set((await heartbeats()).values()) == {17}
