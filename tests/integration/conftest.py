"""Fixtures of the tests that work on real services inside one process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from contracts.commands import KINDS, decode_payload, fingerprint
from contracts.envelope import Envelope
from ops.admin.keys import create_key
from ops.simulators.phone.adb_programs import AdbProgram, bundled, of_distribution
from ops.simulators.phone.lab import running_adb_server
from ops.stack.session import Session
from tests.integration.gateway_process import GatewayProcess, empty_work_queues, gateway_process
from tests.integration.one_phone import OnePhone, one_phone
from workers.ai.answers.streaming import TokenStreams, open_token_streams
from workers.android.adb.server import AdbServer
from workers.stages import Admitted, Delivery


@pytest.fixture(scope="session")
def make_admitted() -> Callable[..., Admitted]:
    """Makes an admitted `ai.send` command under a new id."""

    def make(
        *,
        publisher: str = "demo",
        id_: UUID | None = None,
        body: bytes = b'{"prompt":"hello"}',
        repeatable: bool = True,
    ) -> Admitted:
        now = datetime.now(UTC)
        kind = KINDS["ai.send"]
        reply_to = f"reply.{publisher}"
        envelope = Envelope(publisher, id_ or uuid4(), kind, "demo", now, now + timedelta(hours=1), reply_to=reply_to)
        delivery = Delivery(1, 1, "ai.send", SimpleNamespace(headers={}), body, 0.0)
        payload = decode_payload(kind, body)
        return Admitted(delivery, envelope, payload, body.decode(), fingerprint(kind.name, body), repeatable)

    return make


@pytest.fixture(scope="module")
def gateway(services: Session) -> Iterator[GatewayProcess]:
    """A gateway of the module's own; what its tests left queued is gone afterwards."""
    with gateway_process(services) as running:
        yield running
    asyncio.run(empty_work_queues(services))


@pytest.fixture
async def no_workers(services: Session) -> None:
    """No worker is on record: those that other tests killed may seem to live for some seconds more."""
    connection = await asyncpg.connect(services.postgres_url("ish_owner"))
    await connection.execute("delete from workers")
    await connection.close()


@pytest.fixture
def owner() -> str:
    """Somebody whom no other test knows."""
    return f"o{uuid4().hex[:10]}"


@pytest.fixture
async def key(services: Session, owner: str) -> str:
    """The owner's API key."""
    return await create_key(services.postgres_url("ish_ops"), owner)


@pytest.fixture
async def client(gateway: GatewayProcess, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway with the owner's key."""
    async with gateway.client(key) as one:
        yield one


@pytest.fixture
async def streams(services: Session) -> AsyncIterator[TokenStreams]:
    """Where a worker leaves tokens."""
    async with open_token_streams(services.redis_url) as one:
        yield one


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest) -> AdbProgram:
    """Today's adb; with `BOTH_ADBS` the distribution's as well."""
    return of_distribution(print) if getattr(request, "param", "") == "distribution" else bundled()


@pytest.fixture(scope="module")
async def server(program: AdbProgram, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AdbServer]:
    """A real adb server of its own."""
    home = tmp_path_factory.mktemp("adb")
    async with running_adb_server(home, program=program.path, environment=program.environment) as running:
        yield running


@pytest.fixture
async def phone(server: AdbServer, tmp_path: Path) -> AsyncIterator[OnePhone]:
    """A simulated phone that the adb server is connected to."""
    async with one_phone(server, tmp_path) as connected:
        yield connected
