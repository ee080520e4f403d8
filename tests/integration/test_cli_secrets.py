"""Commands send no secret of the local stack to what has not shown that it is the stack's own service."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ops.admin.keys import create_key
from ops.stack import environment_file, state
from ops.stack.identity import Identity
from ops.stack.layout import LOOPBACK, Layout, Ports
from ops.stack.secrets import write_private
from ops.stack.session import Session
from tests.integration.gateway_process import GatewayProcess

COMMANDS = {
    "keys": ("keys", "list"),
    "targets": ("targets", "list"),
    "devices": ("devices", "list"),
    "commands": ("commands", "list"),
    "artifacts": ("artifacts", "list"),
    "publishers": ("publishers", "list"),
    "adding a publisher": ("publishers", "add", "somebody"),
    "removing one": ("publishers", "remove", "somebody"),
    "topology": ("topology", "verify"),
    "applying it": ("topology", "apply"),
}


@dataclass(slots=True)
class Stranger:
    """Listens, and keeps what it is sent."""

    port: int
    received: list[bytes] = field(default_factory=list)


@contextmanager
def stranger() -> Iterator[Stranger]:
    with socket.create_server((LOOPBACK, 0)) as server:
        it = Stranger(server.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(1)
                    try:
                        it.received.append(connection.recv(4096))
                    except OSError:
                        it.received.append(b"")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield it
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


@dataclass(slots=True)
class Folder:
    """A state folder as a stack leaves it, and commands that know nothing else."""

    layout: Layout
    services: Session
    api_key: str = "ish_none"

    def write(self, ports: Ports, children: dict[str, tuple[Identity | None, int]]) -> None:
        """Write `env` and `stack.json`."""
        addresses, real = self.services.addresses, self.services.layout.ports

        def moved(url: str, service: str) -> str:
            return url.replace(f":{getattr(real, service)}", f":{getattr(ports, service)}")

        values = {
            "ISH_GATEWAY_URL": f"http://{LOOPBACK}:{ports.gateway}",
            "ISH_API_KEY": self.api_key,
            "ISH_AMQP_URL": moved(addresses.amqp_by_user["ops"], "amqp"),
            "ISH_POSTGRES_URL": moved(addresses.postgres_by_role["ish_ops"], "postgres"),
            "ISH_RABBITMQ_MANAGEMENT_URL": moved(addresses.management_by_user["ops"], "management"),
        }
        write_private(self.layout.environment_file, "".join(f"export {k}={v}\n" for k, v in values.items()))
        own = Identity.own()
        record = state.StackRecord(
            pid=own.pid,
            started=own.started,
            phase="ready",
            children=[
                state.ChildRecord(
                    name=name,
                    state="ready" if identity else "stopped",
                    pid=identity.pid if identity else None,
                    started=identity.started if identity else None,
                    port=port,
                )
                for name, (identity, port) in children.items()
            ],
        )
        state.write(self.layout, record)

    async def run(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "ops", *words],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "ISH_STATE_DIR": str(self.layout.state_dir),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def folder(services: Session, tmp_path: Path) -> Folder:
    layout = Layout(tmp_path / "state", Ports.at(0))
    layout.create()
    admin = services.layout.secrets_dir / "rabbitmq-admin"
    write_private(layout.secrets_dir / admin.name, admin.read_text(encoding="utf-8"))
    return Folder(layout, services)


def identities(services: Session) -> dict[str, Identity | None]:
    """The real processes of the test run's services."""
    return {
        name: getattr(services, fault).child.identity
        for name, fault in (("rabbitmq", "broker"), ("postgres", "postgres"))
    }


@pytest.mark.parametrize("how", ["the stack runs elsewhere", "the stack is down"])
async def test_a_stranger_on_the_stacks_port_is_sent_nothing(folder: Folder, services: Session, how: str) -> None:
    real = identities(services)
    down = how == "the stack is down"
    with stranger() as it:
        ports = Ports(**dict.fromkeys(Ports.__dataclass_fields__, it.port))
        children = {**real, "gateway": real["postgres"]}  # they live, and the port is none of theirs
        folder.write(ports, {name: (None if down else one, it.port) for name, one in children.items()})
        words = [COMMANDS[name] for name in ("keys", "publishers", "commands")]
        answers = await asyncio.gather(*(folder.run(*one) for one in (words if down else COMMANDS.values())))
        sourced = {
            name: environment_file.read_value(folder.layout, name)
            for name in ("ISH_POSTGRES_URL", "ISH_GATEWAY_URL", "ISH_RABBITMQ_MANAGEMENT_URL", "ISH_AMQP_URL")
        }
        answers += await asyncio.gather(*(folder.run(*one, **sourced) for one in words))

    assert it.received == []
    for answer in answers:
        assert answer.returncode != 0, answer.args
        assert answer.stderr.startswith("ish: "), answer.stderr
        assert answer.stderr.count("\n") == 1, answer.stderr
        assert "ish up" in answer.stderr if down else "ish status" in answer.stderr
        assert f":{it.port}" in answer.stderr


async def test_the_folder_knows_the_stacks_own_services_whatever_ports_are_meant(
    folder: Folder, services: Session, gateway: GatewayProcess
) -> None:
    folder.api_key = await create_key(services.postgres_url("ish_ops"), "demo")
    real = services.layout.ports
    port = int(gateway.url.rpartition(":")[2])
    ports = Ports(**{name: getattr(real, name) for name in Ports.__dataclass_fields__} | {"gateway": port})
    children = {name: (one, port) for name, one in identities(services).items()}
    folder.write(ports, children | {"gateway": (gateway.process.identity, port)})

    first = await folder.run("publishers", "add", "somebody")
    answers = [
        await folder.run(*COMMANDS[name], ISH_PORT_OFFSET="300")
        for name in ("keys", "devices", "publishers", "applying it")
    ]
    answers.append(await folder.run("publishers", "remove", "somebody", "--replies"))
    answers.append(await folder.run("commands", "list"))

    assert first.stdout.startswith("amqp://somebody:"), first.stderr
    assert f"@{LOOPBACK}:{real.amqp}/" in first.stdout
    for answer in answers:
        assert answer.returncode == 0, answer.stderr


async def test_an_address_that_was_given_is_used_as_it_is(folder: Folder, services: Session) -> None:
    with stranger() as it:
        ports = Ports(**dict.fromkeys(Ports.__dataclass_fields__, it.port))
        folder.write(ports, {name: (one, it.port) for name, one in identities(services).items()})

        answer = await folder.run("keys", "list", "--json", ISH_POSTGRES_URL=services.postgres_url("ish_ops"))

    assert answer.returncode == 0, answer.stderr
    assert isinstance(json.loads(answer.stdout), list)
    assert it.received == []
