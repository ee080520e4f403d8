"""Every command of `ish` against services that cannot be used: one line that names what, where, and what to do."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ops.cli.main import app
from ops.stack.addresses import with_login
from ops.stack.session import Session
from tests.integration.gateway_process import free_port

SECRET = "hush-p%2Fss"
ID = "01890a5d-ac96-774b-bcce-b302099a8057"

ARGUMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "keys create": ("postgres", ("someone",)),
    "keys list": ("postgres", ()),
    "keys revoke": ("postgres", ("abcdefghijkl",)),
    "targets add": ("postgres", ("hook", "https://example.com/", "--owner", "someone")),
    "targets list": ("postgres", ()),
    "targets remove": ("postgres", ("hook", "--owner", "someone")),
    "devices list": ("postgres", ()),
    "devices tag": ("postgres", ("SERIAL", "tag")),
    "devices untag": ("postgres", ("SERIAL", "tag")),
    "devices release": ("postgres", ("SERIAL",)),
    "publishers add": ("management", ("someone",)),
    "publishers list": ("management", ()),
    "publishers remove": ("management", ("someone",)),
    "topology apply": ("amqp", ()),
    "topology diff": ("management", ()),
    "topology verify": ("management", ()),
    "commands list": ("gateway", ()),
    "commands show": ("gateway", (ID,)),
    "commands cancel": ("gateway", (ID,)),
    "artifacts list": ("gateway", ()),
    "artifacts upload": ("gateway", (__file__,)),
    "artifacts get": ("gateway", ("a" * 64, "/nowhere/file")),
    "run": ("stack", ()),
    "up": ("stack", ()),
}
"""By command: the first service that it asks, and arguments with which it gets that far."""
OWN_FAILURES = {"down", "status", "providers check", "phone start", "phone change"}
"""Ask none of the services above; their failures are in tests of their own."""

NAMES = {
    "postgres": ("PostgreSQL", "ISH_POSTGRES_URL"),
    "management": ("RabbitMQ's management API", "ISH_RABBITMQ_MANAGEMENT_URL"),
    "amqp": ("RabbitMQ", "ISH_AMQP_URL"),
    "gateway": ("the gateway", "ISH_GATEWAY_URL"),
    "stack": ("PostgreSQL", "ISH_POSTGRES_URL"),
}


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command of the tree."""
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path)
        return
    for name, child in children.items():
        yield from leaves(child, (*path, name))


@pytest.fixture(scope="module")
def junk() -> Iterator[int]:
    """The port of a server that speaks no protocol of ours: it answers a line and closes."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def environment(place: str, folder: Path) -> dict[str, str]:
    """Settings that name one place for every service."""
    return {
        "ISH_STATE_DIR": str(folder),
        "ISH_POSTGRES_URL": f"postgresql://x:{SECRET}@{place}/z",
        "ISH_AMQP_URL": f"amqp://x:{SECRET}@{place}/%2F",
        "ISH_RABBITMQ_MANAGEMENT_URL": f"http://x:{SECRET}@{place}",
        "ISH_REDIS_URL": f"redis://:{SECRET}@{place}/0",
        "ISH_GATEWAY_URL": f"http://{place}",
        "ISH_API_KEY": "ish_aaaaaaaaaaaa_hush",
        "ISH_ADB_SERVERS": place,
    }


def ended_in_one_line(command: str, variables: dict[str, str], *, code: int = 1) -> str:
    """Run a command in this process; returns what it said."""
    _, arguments = ARGUMENTS[command]
    ended = CliRunner().invoke(app, [*command.split(), *arguments], env=variables)

    assert isinstance(ended.exception, SystemExit), repr(ended.exception)
    assert ended.exit_code == code, ended.output
    [line] = ended.stderr.splitlines()
    assert line.startswith("ish: ")
    assert "hush" not in ended.output
    assert "Errno" not in line
    assert "Error(" not in line
    return str(line)


def test_every_command_is_in_the_table() -> None:
    assert set(leaves(typer.main.get_command(app))) == set(ARGUMENTS) | OWN_FAILURES


@pytest.mark.parametrize("command", ARGUMENTS)
def test_a_service_that_is_not_there_is_named(command: str, tmp_path: Path) -> None:
    place = f"127.0.0.1:{free_port()}"
    service, setting = NAMES[ARGUMENTS[command][0]]

    line = ended_in_one_line(command, environment(place, tmp_path))

    assert line.startswith(f"ish: {service} at {place}")
    assert "connection refused" in line
    assert setting in line


@pytest.mark.parametrize("command", ARGUMENTS)
def test_a_host_without_an_address_is_named(command: str, tmp_path: Path) -> None:
    service, setting = NAMES[ARGUMENTS[command][0]]

    line = ended_in_one_line(command, environment("nothing.invalid:1234", tmp_path))

    assert line.startswith(f"ish: {service} at nothing.invalid:1234")
    assert "the name of its host cannot be resolved" in line
    assert setting in line


@pytest.mark.parametrize("command", ARGUMENTS)
def test_a_server_that_speaks_something_else_is_named(command: str, tmp_path: Path, junk: int) -> None:
    _, setting = NAMES[ARGUMENTS[command][0]]

    line = ended_in_one_line(command, environment(f"127.0.0.1:{junk}", tmp_path))

    assert f"127.0.0.1:{junk}" in line
    assert setting in line


@pytest.mark.parametrize("command", ARGUMENTS)
def test_what_is_no_address_is_a_wrong_setting_and_not_repeated(command: str, tmp_path: Path) -> None:
    service = ARGUMENTS[command][0]
    setting = NAMES[service][1]
    variables = environment("127.0.0.1:1", tmp_path) | {setting: "x://u:hush@host:99999999/"}

    line = ended_in_one_line(command, variables, code=2)

    assert line.startswith(f"ish: {setting}: is not the address of ")


@pytest.mark.parametrize("command", [name for name in ARGUMENTS if ARGUMENTS[name][0] != "stack"])
def test_no_address_at_all_says_what_to_set(command: str, tmp_path: Path) -> None:
    service = ARGUMENTS[command][0]
    asked = "ISH_RABBITMQ_MANAGEMENT_URL" if service == "amqp" else NAMES[service][1]

    line = ended_in_one_line(command, {"ISH_STATE_DIR": str(tmp_path)}, code=2)

    assert asked in line


@pytest.mark.parametrize("command", [name for name in ARGUMENTS if ARGUMENTS[name][0] == "postgres"])
@pytest.mark.parametrize(
    ("role", "password", "database", "said"),
    [
        ("ish_ops", "hush", "ish", "login refused"),
        ("nobody", "hush", "ish", "login refused"),
        ("ish_ops", None, "nothing", "there is no database nothing"),
        ("postgres", None, "postgres", "the tables in the database postgres are missing"),
    ],
)
def test_what_postgresql_refuses_is_told_with_what_to_do(
    command: str,
    *,
    role: str,
    password: str | None,
    database: str,
    said: str,
    services: Session,
    tmp_path: Path,
) -> None:
    known = services.addresses.postgres_administrator if role == "postgres" else services.postgres_url("ish_ops")
    url = with_login(known, role, password) if password else known
    url = url.rpartition("/")[0] + f"/{database}"

    line = ended_in_one_line(command, {"ISH_STATE_DIR": str(tmp_path), "ISH_POSTGRES_URL": url})

    assert said in line
    assert f" as {role}: " in line
    assert "ISH_POSTGRES_URL" in line


@pytest.mark.parametrize("command", ["keys create", "keys revoke", "targets add", "devices tag", "devices release"])
def test_a_role_without_the_right_is_told_which_one_has_it(command: str, services: Session, tmp_path: Path) -> None:
    variables = {"ISH_STATE_DIR": str(tmp_path), "ISH_POSTGRES_URL": services.postgres_url("ish_gateway")}

    line = ended_in_one_line(command, variables)

    assert "this role may not do that" in line
    assert "ISH_POSTGRES_URL must be the address of the role ish_ops" in line


@pytest.mark.parametrize("command", [name for name in ARGUMENTS if ARGUMENTS[name][0] in {"management", "amqp"}])
def test_a_login_that_rabbitmq_refuses_is_told_with_what_to_do(command: str, services: Session, tmp_path: Path) -> None:
    variables = {
        "ISH_STATE_DIR": str(tmp_path),
        "ISH_AMQP_URL": with_login(services.amqp_url("admin"), "admin", "hush"),
        "ISH_RABBITMQ_MANAGEMENT_URL": with_login(services.management_url, "admin", "hush"),
        "ISH_POSTGRES_URL": services.postgres_url("ish_ops"),
    }

    line = ended_in_one_line(command, variables)

    assert " as admin" in line
    assert "refuse" in line
    assert "correct the user and the password" in line


def test_a_fault_of_our_own_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> object:
        raise RuntimeError("[/x] broken")

    monkeypatch.setattr("ops.cli.main.report.summary", broken)

    ended = CliRunner().invoke(app, ["status"], env={"ISH_STATE_DIR": str(tmp_path)})

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("ish: this is a fault of ish itself (RuntimeError: [/x] broken); ")
    assert ended.stderr.count("\n") == 1
