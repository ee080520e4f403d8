"""Fixtures of the acceptance tests: real processes on the test run's real services."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex

import asyncpg
import pytest

from ops.admin.publishers import add_publisher
from ops.stack.addresses import with_login
from ops.stack.session import Session
from tests.acceptance.outsider import Account, Outsider, connected
from tests.acceptance.records import Queues, Records
from tests.acceptance.stage import Stage
from tests.conftest import own_services


@pytest.fixture(scope="session")
def services() -> Iterator[Session]:
    """Services of their own: these tests kill the broker, and RabbitMQ 3.10 may lose queues that were deleted before.

    Which is what other tests do to theirs, and declare them anew.
    """
    with own_services() as running:
        yield running


@pytest.fixture
async def stage(services: Session, tmp_path: Path) -> AsyncIterator[Stage]:
    """Empty queues, no phones that earlier tests had, and processes that end with the test."""
    owner = await asyncpg.connect(services.postgres_url("ish_owner"))
    await owner.execute("delete from device_leases; delete from devices")
    await owner.close()
    queues = Queues(services.amqp_url("admin"), services.management_url)
    await queues.purge()
    records = Records(services.postgres_url("ish_ops"))
    it = Stage(services, tmp_path, records, queues, owner=f"owner-{token_hex(4)}")
    try:
        yield it
    finally:
        await it.close()


@pytest.fixture
async def account(services: Session) -> Account:
    """A publisher of this test's own, not connected."""
    return await new_account(services)


@pytest.fixture
async def demo(account: Account) -> AsyncIterator[Outsider]:
    """A publisher of this test's own, connected."""
    async with connected(account) as it:
        yield it


@pytest.fixture
async def other(services: Session) -> AsyncIterator[Outsider]:
    """A second publisher, connected."""
    async with connected(await new_account(services)) as it:
        yield it


async def new_account(services: Session) -> Account:
    """Add an outside publisher as an operator would."""
    name, administrator = f"demo-{token_hex(4)}", services.amqp_url("admin")
    password = await add_publisher(services.management_url, name, amqp_url_for_admin=administrator)
    return Account(name, with_login(administrator, name, password))
