"""Every command acts on the vhost that ISH_AMQP_URL names, and keeps what else the address says."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import pytest
from typer.testing import CliRunner

from contracts.amqp.broker import connect
from contracts.topology import ROLES, WORK_QUEUES
from ops.admin import publishers
from ops.admin.rabbitmq_management import Management
from ops.cli.main import app
from ops.stack import accounts
from ops.stack.addresses import Addresses, Given
from ops.stack.layout import Layout
from ops.stack.services import Services
from ops.stack.session import Session


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody whose settings name a vhost of a broker that was given."""

    variables: dict[str, str]

    def ish(self, *arguments: str, code: int = 0) -> str:
        """Run a command; returns its output."""
        ended = CliRunner().invoke(app, arguments, env=self.variables)
        assert ended.exit_code == code, ended.output
        return ended.output


@pytest.fixture
async def vhost(services: Session) -> AsyncIterator[str]:
    """An empty vhost, whose name needs quoting."""
    name = f"team/{uuid4().hex[:8]}"
    async with Management(services.management_url) as api:
        await api.put("vhosts", name, body={})
        await api.put("permissions", name, "admin", body={"configure": ".*", "write": ".*", "read": ".*"})
        yield name
        await api.delete("vhosts", name)


@pytest.fixture
def operator(services: Session, vhost: str, tmp_path: Path) -> Operator:
    amqp_url = urlsplit(services.amqp_url("admin"))._replace(path=f"/{vhost.replace('/', '%2F')}", query="heartbeat=17")
    return Operator(
        {
            "ISH_STATE_DIR": str(tmp_path),
            "ISH_AMQP_URL": amqp_url.geturl(),
            "ISH_RABBITMQ_MANAGEMENT_URL": services.management_url,
            "ISH_POSTGRES_URL": services.postgres_url("ish_ops"),
        }
    )


async def queues(services: Session, vhost: str) -> set[str]:
    async with Management(services.management_url) as api:
        return {one["name"] for one in await api.get("queues", vhost)}


async def test_topology_and_publishers_are_those_of_the_vhost(
    services: Session, vhost: str, operator: Operator
) -> None:
    name = f"p{uuid4().hex[:8]}"
    before = await queues(services, "/")

    missing = await asyncio.to_thread(operator.ish, "topology", "diff", code=1)
    made = await asyncio.to_thread(operator.ish, "topology", "apply")
    rest = await asyncio.to_thread(operator.ish, "topology", "diff")
    url = (await asyncio.to_thread(operator.ish, "publishers", "add", name)).strip()
    listed = json.loads(await asyncio.to_thread(operator.ish, "publishers", "list", "--json"))

    assert all(f"+ queue {queue}" in missing for queue in WORK_QUEUES)
    assert all(f"made {queue}" in made for queue in WORK_QUEUES)
    assert rest == "everything is as it should be\n"
    assert urlsplit(url).path == f"/{vhost.replace('/', '%2F')}"
    assert urlsplit(url).query == "heartbeat=17"
    assert [one["name"] for one in listed] == [name]
    assert name not in {one.name for one in await publishers.list_publishers(services.management_url)}
    assert {*WORK_QUEUES, f"reply.{name}"} <= await queues(services, vhost)
    assert await queues(services, "/") == before
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        assert (await channel.get_queue(f"reply.{name}")).name == f"reply.{name}"

    await asyncio.to_thread(operator.ish, "publishers", "remove", name)
    assert f"reply.{name}" not in await queues(services, vhost)


async def test_our_own_users_get_their_rights_in_the_vhost(
    services: Session, vhost: str, operator: Operator, tmp_path: Path
) -> None:
    for role in ROLES:  # a broker given from outside may know our users: the passwords are put where the stack looks
        (tmp_path / "secrets").mkdir(exist_ok=True)
        secret = services.layout.secrets_dir / f"rabbitmq-{role}"
        (tmp_path / "secrets" / f"rabbitmq-{role}").write_text(secret.read_text(encoding="utf-8"), encoding="utf-8")
    layout = Layout(tmp_path, services.layout.ports)
    given = Given(
        operator.variables["ISH_AMQP_URL"], services.management_url, services.postgres_url("ish_ops"), "r", "a", ""
    )
    addresses = Addresses.of(layout, Services(None, None, None, None), given)

    await accounts.own_users(layout, addresses)

    lines = await asyncio.to_thread(operator.ish, "topology", "verify", code=1)
    assert not [line for line in lines.splitlines() if " user " in line]
    assert urlsplit(addresses.amqp_by_user["worker"]).path == f"/{vhost.replace('/', '%2F')}"
    assert urlsplit(addresses.amqp_by_user["worker"]).query == "heartbeat=17"


async def test_a_vhost_that_is_not_there_is_told_with_what_to_do(services: Session, operator: Operator) -> None:
    del services
    url = urlsplit(operator.variables["ISH_AMQP_URL"])._replace(path="/nothing").geturl()
    lost = Operator({**operator.variables, "ISH_AMQP_URL": url})

    said = await asyncio.to_thread(lost.ish, "topology", "apply", code=1)

    assert "the vhost nothing is not there, or closed to this user" in said
    assert "rabbitmqctl add_vhost" in said


async def test_a_heartbeat_in_the_address_is_kept(services: Session) -> None:
    url = urlsplit(services.amqp_url("admin"))._replace(query="heartbeat=17").geturl()

    async with await connect(url, name="test") as connection:
        assert connection.transport is not None
        assert connection.transport.connection.url.query["heartbeat"] == "17"
        assert connection.transport.connection.url.query["name"] == "test"


async def test_the_default_vhost_is_written_out_for_other_clients(services: Session, tmp_path: Path) -> None:
    shown = await asyncio.to_thread(
        Operator(
            {
                "ISH_STATE_DIR": str(tmp_path),
                "ISH_AMQP_URL": services.amqp_url("admin").removesuffix("%2F"),
                "ISH_RABBITMQ_MANAGEMENT_URL": services.management_url,
                "ISH_POSTGRES_URL": services.postgres_url("ish_ops"),
            }
        ).ish,
        "publishers",
        "add",
        name := f"p{uuid4().hex[:8]}",
    )

    assert urlsplit(shown.strip()).path == "/%2F"
    await publishers.remove_publisher(services.management_url, name, amqp_url_for_admin=services.amqp_url("admin"))
    assert services.amqp_url("worker").endswith("/%2F")
