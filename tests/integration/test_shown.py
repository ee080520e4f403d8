"""Every command of `ish` that shows something, on a stack full of what people write: 80 columns, text, and whole JSON."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import asyncpg
import httpx
import pytest
import typer
from rich.cells import cell_len
from typer.testing import CliRunner

from contracts import topology
from ops.admin import keys, publishers
from ops.cli.main import app
from ops.simulators.phone.behaviour import Behaviour, Control
from ops.simulators.phone.control_port import serving_control
from ops.stack import state
from ops.stack.identity import Identity
from ops.stack.layout import Layout, Ports
from ops.stack.session import Session
from tests.integration.gateway_process import RELAY, GatewayProcess, eventually, free_port
from tests.integration.test_command_failures import leaves

MARKUP = "[/x] [bold]b[/] :smile:"
STEERING = "\x1b[31mred\x07\r\x9b2J \u202eevil\u2069"
CJK = "中文" * 40
LONG = "word " * 40 + "x" * 200
TEXTS = (MARKUP, STEERING, CJK, LONG)
EVIL = " ".join(TEXTS)

CHANGES = {
    *("run", "up", "down"),
    *("keys create", "keys revoke", "targets add", "targets remove"),
    *("devices tag", "devices untag", "devices release", "publishers add", "publishers remove"),
    *("topology apply", "commands cancel", "artifacts upload", "artifacts get", "phone start"),
}
"""Commands that change something, or run until they are stopped: what they print is in tests of their own."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command that shows something is given, and what must be in it."""

    arguments: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    """What one copies from it: unbroken in a line."""
    codes: tuple[int, ...] = (0,)
    copied_after: str | None = None
    """From this line on it is one JSON document to be copied, whose lines are as long as they are."""


@dataclass(frozen=True, slots=True)
class Busy:
    """A stack with something of everything in it."""

    variables: dict[str, str]
    shown: dict[str, Shown]


@pytest.fixture(scope="module")
def busy(services: Session, gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    folder = tmp_path_factory.mktemp("s")
    owner = "o" + uuid4().hex + "x" * 30
    publisher = "p" + uuid4().hex + "-" * 30
    serial = "S" + uuid4().hex[:31]
    ops, administrator = services.postgres_url("ish_ops"), services.postgres_url("ish_owner")
    api_key = asyncio.run(_fill(ops, administrator, owner, serial))
    made = publishers.add_publisher(
        services.management_url, publisher, amqp_url_for_admin=services.amqp_url("admin"), postgres_url=ops
    )
    asyncio.run(made)
    asyncio.run(_bind(services.amqp_url("admin")))
    command_ids = _commands(gateway, api_key, administrator)
    artifact_id = _artifact(gateway, api_key)
    with _phone() as control_port:
        yield Busy(
            variables={
                "COLUMNS": "80",
                "ISH_STATE_DIR": str(_state(folder)),
                "ISH_POSTGRES_URL": ops,
                "ISH_AMQP_URL": services.amqp_url("admin"),
                "ISH_RABBITMQ_MANAGEMENT_URL": services.management_url,
                "ISH_GATEWAY_URL": gateway.url,
                "ISH_API_KEY": api_key,
            },
            shown={
                "keys list": Shown(whole=(api_key.split("_")[1], owner)),
                "targets list": Shown(whole=(owner, *_target_names())),
                "devices list": Shown(whole=(serial,)),
                "publishers list": Shown(whole=(publisher,)),
                "topology diff": Shown(codes=(1,)),
                "topology verify": Shown(codes=(1,)),
                "commands list": Shown(whole=tuple(command_ids)),
                "commands show": Shown((command_ids[0],), whole=(command_ids[0],), copied_after="result"),
                "artifacts list": Shown(whole=(artifact_id,)),
                "providers check": Shown(("--file", str(_providers(folder))), codes=(1,)),
                "status": Shown(codes=(1,)),
                "phone change": Shown(("--control", str(control_port))),
            },
        )
    asyncio.run(_remove(services, owner, publisher, serial))


def _target_names() -> tuple[str, ...]:
    return ("t" * 63, "short")


async def _fill(ops: str, administrator: str, owner: str, serial: str) -> str:
    created = [await keys.create_key(ops, owner, label) for label in TEXTS]
    connection = await asyncpg.connect(administrator)
    try:
        for name in _target_names():
            await connection.execute(
                "insert into targets (owner, name, url, secret, conversation_id) values ($1, $2, $3, 'whsec_', $4)",
                *(owner, name, f"https://example.com/{EVIL}", EVIL),
            )
        await connection.execute(
            """insert into devices
              (serial, host, transport, state, hint, model, android_version, battery_percent, tags, queue_depth, seen_at)
            values ($1, $2, $2, 'unauthorized', $2, $2, $2, 100, $3, 1234567, clock_timestamp())""",
            *(serial, EVIL, ["t" * 63, "u" * 63]),
        )
    finally:
        await connection.close()
    return created[0]


def _commands(gateway: GatewayProcess, api_key: str, administrator: str) -> list[str]:
    """Ids of commands in every state, as the gateway recorded them; the first one holds whatever `show` can show."""
    ids = []
    with httpx.Client(base_url=gateway.url, headers={"X-API-Key": api_key}, trust_env=False) as client:
        for path, body in (
            *((("/api/send", {"prompt": "hello"}),) * 2),
            *((("/api/relay", RELAY),) * 3),
            *((("/api/android/execute", {"action": "screenshot"}),) * 3),
        ):
            answer = client.post(path, json=body)
            assert answer.status_code == 202, answer.text
            ids.append(str(answer.json()["id"]))
    asyncio.run(_end(administrator, ids))
    return ids


async def _end(administrator: str, ids: list[str]) -> None:
    """Write what became of each of them."""
    states = ("failed", "succeeded", "queued", "running", "retrying", "cancelled", "expired", "indeterminate")
    error = {"code": "provider_authentication", "message": EVIL}
    details = {
        "route": {
            "policy": "priority",
            "alias": EVIL,
            "candidates": [{"target": EVIL, "score": 0.123456, "reason": EVIL}],
            "left_out": [{"target": "m" * 264, "score": None, "reason": EVIL}],
        },
        "calls": [{"target": "m" * 264, "outcome": "provider_rate_limited", "message": EVIL, "seconds": 12345.6}] * 2,
    }
    connection = await asyncpg.connect(administrator)
    try:
        await eventually(lambda: _all_recorded(connection, ids))
        for id_, became in zip(ids, states, strict=True):
            ended = became not in ("queued", "running", "retrying")
            result = {"id": id_, "status": became, "error": None if became == "succeeded" else error, "output": None}
            await connection.execute(
                """update commands set state = $2, correlation_id = $3, error_code = $4, result = $5,
                  finished_at = case when $6 then clock_timestamp() end
                where id = $1""",
                *(UUID(id_), became, EVIL, error["code"] if ended else None, json.dumps(result) if ended else None),
                ended,
            )
        await connection.execute(
            """insert into attempts (publisher, id, day, attempt, token, worker, target, started_at, duration_seconds,
              outcome, error_code, error_message, tokens_in, tokens_out, cost_usd, details)
            select publisher, id, day, 1, 1, $2, $2, now(), 1.75, 'failed', 'provider_authentication', $2, 3, 40, 0.1, $3
            from commands where id = $1""",
            *(UUID(ids[0]), EVIL, json.dumps(details)),
        )
    finally:
        await connection.close()


async def _all_recorded(connection: Any, ids: list[str]) -> bool:
    return bool(await connection.fetchval("select count(*) = $2 from commands where id = any($1)", ids, len(ids)))


def _artifact(gateway: GatewayProcess, api_key: str) -> str:
    answer = httpx.post(
        f"{gateway.url}/api/artifacts",
        content=uuid4().bytes,
        params={"file_name": "[bold] 中文 " + "x" * 180},
        headers={"X-API-Key": api_key, "Content-Type": "application/octet-stream"},
        trust_env=False,
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _providers(folder: Path) -> Path:
    file = folder / "providers.toml"
    table = '[providers.{name}]\ndialect = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\n[providers.{name}.models."{model}"]\n'
    tables = [table.format(name=name, port=free_port(), model="m" * 200) for name in ("p" * 64, "q")]
    file.write_text("".join(tables), encoding="utf-8")
    return file


def _state(folder: Path) -> Path:
    """A state folder whose stack is told to run, with one process of each sort."""
    layout = Layout(folder, Ports.at(0))
    own = Identity.own()
    child = state.ChildRecord(name="android-12", state="ready", pid=own.pid, started=own.started, port=65535, since=1.0)
    children = [child, *(_renamed(child, name) for name in ("rabbitmq", "gateway"))]
    record = state.StackRecord(pid=own.pid, started=own.started, phase="ready", children=children)
    layout.create()
    state.write(layout, record)
    return folder


def _renamed(child: state.ChildRecord, name: str) -> state.ChildRecord:
    return child.model_copy(update={"name": name, "state": "restarting", "restarts": 123456})


@contextmanager
def _phone() -> Iterator[int]:
    """The control port of a simulated phone."""
    port, stopping = free_port(), threading.Event()
    ready = threading.Event()

    async def serve() -> None:
        async with serving_control({"SIM": Control(Behaviour())}, port=port):
            ready.set()
            await asyncio.to_thread(stopping.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield port
    finally:
        stopping.set()
        thread.join()


async def _bind(url: str, *, undo: bool = False) -> None:
    """Make a binding that is not ours, which `topology diff` tells of."""
    connection = await aio_pika.connect(url)
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue(topology.RELAY)
        await (queue.unbind if undo else queue.bind)(topology.COMMANDS, MARKUP + STEERING + LONG[-150:])


async def _remove(services: Session, owner: str, publisher: str, serial: str) -> None:
    await publishers.remove_publisher(
        services.management_url,
        publisher,
        replies=True,
        amqp_url_for_admin=services.amqp_url("admin"),
        postgres_url=services.postgres_url("ish_ops"),
    )
    await _bind(services.amqp_url("admin"), undo=True)
    connection = await asyncpg.connect(services.postgres_url("ish_owner"))
    try:
        await connection.execute("delete from devices where serial = $1", serial)
        await connection.execute("delete from targets where owner = $1", owner)
    finally:
        await connection.close()


def shows() -> list[str]:
    """Every command of the tree that is not known to change something."""
    return sorted(set(leaves(typer.main.get_command(app))) - CHANGES)


def invoked(busy: Busy, command: str, *more: str) -> tuple[Shown, Any]:
    assert command in busy.shown, f"`ish {command}` is new: say how it is shown, or that it changes something"
    shown = busy.shown[command]
    ended = CliRunner().invoke(app, [*command.split(), *shown.arguments, *more], env=busy.variables)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), repr(ended.exception)
    assert ended.exit_code in shown.codes, ended.output
    assert ended.stderr == ""
    return shown, ended


def test_every_command_that_changes_something_is_there() -> None:
    assert set(leaves(typer.main.get_command(app))) >= CHANGES


@pytest.mark.parametrize("command", shows())
def test_what_is_shown_keeps_within_80_columns_and_steers_no_terminal(command: str, busy: Busy) -> None:
    shown, ended = invoked(busy, command)

    lines = ended.stdout.splitlines()
    measured = lines[: lines.index(shown.copied_after)] if shown.copied_after else lines
    assert [line for line in measured if cell_len(line) > 80] == []
    assert not set("\x1b\x07\r\x9b\u202e\u2069") & set(ended.stdout)
    for text in shown.whole:
        assert any(text in line.split() or text in line for line in lines), ended.stdout


@pytest.mark.parametrize("command", shows())
def test_what_is_shown_is_there_for_programs_too(command: str, busy: Busy) -> None:
    shown, ended = invoked(busy, command, "--json")

    document = json.loads(ended.stdout)
    assert isinstance(document, list | dict)
    assert ended.stdout.isascii()
    text = json.dumps(document, ensure_ascii=False)
    for one in shown.whole:
        assert one in text
