"""What a worker or a gateway says when it cannot start: one line with what to do, exit status 1 (2 for a wrong setting)."""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest

from contracts import schema
from contracts.service_checks import check_services
from contracts.settings import Settings
from ops.stack.addresses import with_login
from ops.stack.child import Spec, environment
from ops.stack.session import Session
from tests.forked import Forked
from tests.integration.gateway_process import DEADLINE_SECONDS, free_port

PROGRAMS = {
    "relay": ("worker", ("workers", "relay")),
    "ai": ("worker", ("workers", "ai")),
    "android": ("worker", ("workers", "android")),
    "outbox": ("outbox", ("workers", "outbox")),
    "gateway": ("gateway", ("gateway",)),
}
"""By name: the role of its addresses, and what to run."""
WORKERS = [name for name in PROGRAMS if name != "gateway"]


@contextmanager
def process(name: str, services: Session, folder: Path, **settings: str) -> Iterator[Forked]:
    """One process with the settings of its role, but for those given; an empty one is left out."""
    role, words = PROGRAMS[name]
    variables = {**services.environment(role), "ISH_GATEWAY_PORT": str(free_port()), "ISH_LOG_FORMAT": "json"}
    for setting, value in settings.items():
        variables.pop(f"{setting}_FILE", None)
        variables[setting] = value
    child = Forked(
        Spec(
            name=name,
            argv=(sys.executable, "-m", *words),
            environment=environment({key: value for key, value in variables.items() if value}),
            log_file=folder / f"{name}.log",
            ready=lambda: True,
        )
    )
    child.spawn()
    try:
        yield child
    finally:
        child.kill()


def ended(name: str, services: Session, folder: Path, **settings: str) -> tuple[int | None, str]:
    """The exit status of a process that cannot start, and the one line that it said."""
    with process(name, services, folder, **settings) as child:
        child.wait(DEADLINE_SECONDS)
        status = child.exit_status
    text = child.spec.log_file.read_text(encoding="utf-8")
    [line] = text.splitlines()
    assert line.startswith("ish: "), text
    assert "Errno" not in line
    assert "Error(" not in line
    assert "hush" not in line
    return status, line


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("name", WORKERS)
def test_a_metrics_port_in_use_is_told(name: str, services: Session, tmp_path: Path) -> None:
    with taken_port() as port:
        status, line = ended(name, services, tmp_path, ISH_METRICS_PORT=str(port))

    assert status == 1
    assert line == (
        f"ish: cannot listen on 127.0.0.1:{port}: Address already in use; set ISH_METRICS_HOST or ISH_METRICS_PORT"
    )


@pytest.mark.parametrize(("host", "why"), [("192.0.2.1", "Cannot assign"), ("nothing.invalid", "not known")])
@pytest.mark.parametrize("name", ["relay", "gateway"])
def test_an_address_that_is_not_of_this_machine_is_told(
    name: str, host: str, why: str, services: Session, tmp_path: Path
) -> None:
    setting = "ISH_GATEWAY_HOST" if name == "gateway" else "ISH_METRICS_HOST"

    status, line = ended(name, services, tmp_path, **{setting: host})

    assert status == 1
    assert f"cannot listen on {host}:" in line
    assert why in line
    assert f"set {setting} or " in line


def test_a_gateway_port_in_use_is_told(services: Session, tmp_path: Path) -> None:
    with taken_port() as port:
        status, line = ended("gateway", services, tmp_path, ISH_GATEWAY_PORT=str(port))

    assert status == 1
    assert (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; set ISH_GATEWAY_HOST or ISH_GATEWAY_PORT" in line
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("[providers", "providers.toml"),
        ('[providers.a]\ndialect = "nope"\nbase_url = "http://127.0.0.1:1/v1"\n', "dialect"),
        ('[providers.a]\ndialect = "openai"\nbase_url = "http://x:hush@127.0.0.1:1/v1"\n', "base_url"),
    ],
)
def test_a_providers_file_that_cannot_be_used_is_told(
    content: str | None, said: str, services: Session, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    if content is not None:
        file.write_text(content, encoding="utf-8")

    status, line = ended("ai", services, tmp_path, ISH_PROVIDERS_FILE=str(file))

    assert status == 2
    assert str(file) in line
    assert said in line


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_login_that_postgresql_refuses_is_told(name: str, services: Session, tmp_path: Path) -> None:
    role = f"ish_{PROGRAMS[name][0]}"
    url = with_login(services.postgres_url(role), role, "hush")

    status, line = ended(name, services, tmp_path, ISH_POSTGRES_URL=url)

    assert status == 1
    assert f"PostgreSQL at 127.0.0.1:{services.layout.ports.postgres} as {role}: login refused" in line
    assert "correct the user and the password in ISH_POSTGRES_URL" in line


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_database_that_is_missing_is_told(name: str, services: Session, tmp_path: Path) -> None:
    url = services.postgres_url(f"ish_{PROGRAMS[name][0]}").rpartition("/")[0] + "/nothing"

    status, line = ended(name, services, tmp_path, ISH_POSTGRES_URL=url)

    assert status == 1
    assert "there is no database nothing; correct ISH_POSTGRES_URL" in line


@pytest.mark.parametrize("name", PROGRAMS)
def test_tables_that_are_missing_are_told(name: str, services: Session, tmp_path: Path) -> None:
    status, line = ended(name, services, tmp_path, ISH_POSTGRES_URL=services.addresses.postgres_administrator)

    assert status == 1
    assert "the tables in the database postgres are missing or of another version" in line
    assert "`ish up`" in line


@pytest.fixture
def of_revision(services: Session) -> Iterator[Callable[[str], str]]:
    """Makes a database whose tables say that they are of a revision; gives its address for workers."""
    name, administrator = f"revision_{token_hex(4)}", services.addresses.postgres_administrator
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(f"create database {name}")

    def make(revision: str) -> str:
        with psycopg.connect(administrator.rpartition("/")[0] + f"/{name}") as connection:
            connection.execute("create table alembic_version (version_num text)")
            connection.execute("insert into alembic_version values (%s)", (revision,))
            connection.execute("grant select on alembic_version to ish_worker")
        return services.postgres_url("ish_worker").rpartition("/")[0] + f"/{name}"

    yield make
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


def test_tables_that_are_older_than_the_program_are_told(
    services: Session, tmp_path: Path, of_revision: Callable[[str], str]
) -> None:
    status, line = ended("relay", services, tmp_path, ISH_POSTGRES_URL=of_revision("0001"))

    assert status == 1
    assert f"are missing or of another version (revision 0001, and this program needs {schema.head()})" in line
    assert "`ish up`" in line


async def test_tables_that_are_newer_than_the_program_are_no_fault(
    services: Session, of_revision: Callable[[str], str]
) -> None:
    await check_services(Settings(amqp_url=services.amqp_url("worker"), postgres_url=of_revision("9999")))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_login_that_rabbitmq_refuses_is_told(name: str, services: Session, tmp_path: Path) -> None:
    user = PROGRAMS[name][0]
    url = with_login(services.amqp_url(user), user, "hush")

    with process(name, services, tmp_path, ISH_AMQP_URL=url) as child:
        line = first_line(child, "broker_unreachable")

    assert line["error"] == (
        f"RabbitMQ at 127.0.0.1:{services.layout.ports.amqp} as {user}: login refused; correct the user and the password "
        "in ISH_AMQP_URL"
    )


@pytest.mark.parametrize("name", ["relay", "gateway"])
@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("ISH_LOG_LEVEL", "LOUD", "ISH_LOG_LEVEL: "),
        ("ISH_LEASE_SECONDS", "soon", "ISH_LEASE_SECONDS: "),
        ("ISH_POSTGRES_URL", "", "ISH_POSTGRES_URL is not set: "),
        ("ISH_AMQP_URL", "", "ISH_AMQP_URL is not set: "),
        ("ISH_POSTGRES_URL", "http://x:hush@127.0.0.1:1/z", "ISH_POSTGRES_URL: "),
        ("ISH_AMQP_URL", "amqp://x:hush@127.0.0.1:99999999/", "ISH_AMQP_URL: "),
        ("ISH_REDIS_URL", "redis//hush", "ISH_REDIS_URL: "),
        ("ISH_ADB_SERVERS", "a:b:c", "ISH_ADB_SERVERS: "),
        ("ISH_POSTGRES_URL_FILE", "/nowhere/file", "ISH_POSTGRES_URL_FILE: cannot read /nowhere/file: "),
    ],
)
def test_a_wrong_setting_is_told(  # noqa: PLR0917  # what pytest gives it, and its fixtures
    name: str, setting: str, value: str, said: str, services: Session, tmp_path: Path
) -> None:
    status, line = ended(name, services, tmp_path, **{setting: value})

    assert status == 2
    assert line.startswith(f"ish: {said}")


@pytest.mark.parametrize("words", [(), ("email",), ("relay", "ai")])
def test_a_pool_that_is_none_is_told(
    words: tuple[str, ...], services: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROGRAMS, "relay", ("worker", ("workers", *words)))

    status, line = ended("relay", services, tmp_path)

    assert status == 2
    assert line == "ish: usage: python -m workers relay|ai|android|outbox"


def lines_of(child: Forked) -> list[dict[str, object]]:
    """What a process has logged."""
    text = child.spec.log_file.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def first_line(child: Forked, event: str) -> dict[str, object]:
    """The first line that a process logs of an event; waited for."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        for line in lines_of(child):
            if line.get("event") == event:
                return line
        assert child.running, child.last_words("it ended")
        assert time.monotonic() < deadline, f"it never logged {event}"
        time.sleep(0.05)
