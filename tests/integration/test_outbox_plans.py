"""Every statement that the outbox worker repeats reads by an index, on tables that hold many rows."""

import asyncio
import re
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest

from contracts.database import acquired
from contracts.topology import RELAY
from ops.stack.session import Session
from tests.integration.outbox_stand import Stand, retention, stand
from workers.outbox.housekeeping import Housekeeping
from workers.outbox.relay import Resend
from workers.outbox.repair.expiry import Expire
from workers.outbox.repair.rescuer import Republish
from workers.outbox.webhooks.addresses import Rules
from workers.outbox.webhooks.delivery import Deliveries
from workers.outbox.webhooks.sending import Webhooks

WHOLE = re.compile(r"Seq Scan on (commands|command_keys|outbox|messages|deliveries|dead_letters)\w*")
FILLER = """
insert into command_keys (publisher, id, fingerprint)
select 'outbox-filler', gen_random_uuid(), 'x' from generate_series(1, 5000);
insert into commands (publisher, id, day, kind, owner, state, routing_key, payload, accepted_at, deadline_at, retry_at)
select publisher, id, day, 'relay', 'outbox-filler', (array['succeeded', 'queued', 'retrying'])[1 + (random() * 2)::int], 'relay',
  '{}', now(), now() + interval '1 day', now() + interval '1 hour'
from command_keys where publisher = 'outbox-filler';
insert into outbox (token, part, publisher, id, kind, status, owner, body, accepted_at, deadline_at, not_before)
select nextval('token_seq'), 0, 'outbox-filler', id, 'relay', 'succeeded', 'outbox-filler', '{}', now(), now(), now() + interval '1 hour'
from command_keys where publisher = 'outbox-filler';
insert into targets (owner, name, url, secret) values ('outbox-filler', 'outbox-filler', 'https://example.org/', 'whsec_')
on conflict do nothing;
insert into deliveries (target_id, owner, conversation_id, publisher, command_id, position, accepted_at, not_before)
select t.id, 'outbox-filler', 'c', 'outbox-filler', k.id, 0, now(), now() + interval '1 hour'
from command_keys k, targets t where k.publisher = 'outbox-filler' and t.owner = 'outbox-filler';
-- two that are due: one is refused for its address and postponed, one is abandoned because its message is gone
insert into targets (owner, name, url, secret) values ('outbox-filler', 'outbox-refused', 'http://example.org/', 'whsec_')
on conflict do nothing;
insert into messages (publisher, command_id, position, owner, conversation_id, sender, text, metadata, sent_at, accepted_at)
select 'outbox-filler', id, 0, 'outbox-filler', 'refused', 'user', 'text', '{}', now(), now()
from command_keys where publisher = 'outbox-filler' limit 1;
insert into deliveries (target_id, owner, conversation_id, publisher, command_id, position, accepted_at)
select t.id, 'outbox-filler', 'refused', m.publisher, m.command_id, 0, now()
from messages m, targets t where m.publisher = 'outbox-filler' and t.name = 'outbox-refused'
union all
select t.id, 'outbox-filler', 'erased', 'outbox-filler', gen_random_uuid(), 0, now()
from targets t where t.owner = 'outbox-filler' and t.name = 'outbox-filler';
analyze command_keys, outbox, deliveries, targets;
-- as autovacuum does, which leaves empty partitions alone
do $$ declare filled regclass; begin
  for filled in select distinct tableoid::regclass from commands loop execute format('analyze %s', filled); end loop;
end $$;
"""
REST = """
delete from deliveries where owner = 'outbox-filler';
delete from messages where owner = 'outbox-filler';
delete from outbox where publisher = 'outbox-filler';
delete from commands where publisher = 'outbox-filler';
delete from command_keys where publisher = 'outbox-filler';
"""


class Explaining:
    """A pool that also asks for the plan of everything that runs on it."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.plans: list[str] = []

    def acquire(self) -> "Acquiring":
        """A connection that explains, to be awaited or entered as asyncpg's is."""
        return Acquiring(self)

    async def explaining(self) -> "ExplainingConnection":
        """A connection that explains."""
        return ExplainingConnection(await self._pool.acquire(), self.plans)

    async def release(self, connection: "ExplainingConnection") -> None:
        """Give it back."""
        await self._pool.release(connection.inner)

    async def fetch(self, sql: str, *arguments: Any) -> Any:
        """As asyncpg's pool."""
        async with acquired(self) as connection:
            return await connection.fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: Any) -> Any:
        """As asyncpg's pool."""
        async with acquired(self) as connection:
            return await connection.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        """As asyncpg's pool."""
        async with acquired(self) as connection:
            return await connection.fetchval(sql, *arguments)

    async def execute(self, sql: str, *arguments: Any) -> Any:
        """As asyncpg's pool."""
        async with acquired(self) as connection:
            return await connection.execute(sql, *arguments)

    def read_whole(self) -> list[str]:
        """Lines of plans that read a big table from end to end."""
        return [line.strip() for plan in self.plans for line in plan.splitlines() if WHOLE.search(line)]


class Acquiring:
    """What asyncpg's `acquire` gives: it is awaited, or entered."""

    def __init__(self, pool: Explaining) -> None:
        self._pool = pool
        self._connection: ExplainingConnection | None = None

    def __await__(self) -> Generator[Any, None, "ExplainingConnection"]:
        return self._pool.explaining().__await__()

    async def __aenter__(self) -> "ExplainingConnection":
        self._connection = await self
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        assert self._connection is not None
        await self._pool.release(self._connection)


class ExplainingConnection:
    """A connection that also asks for the plan of everything it runs."""

    def __init__(self, connection: Any, plans: list[str]) -> None:
        self.inner = connection
        self._plans = plans

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self.inner, name)
        if name not in {"fetch", "fetchrow", "fetchval", "execute"}:
            return inner

        async def explained(sql: str, *arguments: Any) -> Any:
            if sql.split(maxsplit=1)[0] in {"select", "with", "update", "delete"}:
                plan = await self.inner.fetch(f"explain {sql}", *arguments)
                self._plans.append("\n".join(row[0] for row in plan))
            return await inner(sql, *arguments)

        return explained


@pytest.fixture
async def bench(services: Session) -> AsyncIterator[Stand]:
    async with stand(services) as one:
        await one.owner.execute("delete from queue_losses")
        await one.owner.execute(FILLER)
        yield one
        await one.owner.execute(REST)


async def test_every_repeated_statement_reads_by_an_index(bench: Stand) -> None:
    database = Explaining(bench.database)
    await bench.owner.execute("insert into queue_losses (queue) values ($1)", RELAY)
    republish = Republish(database, bench.publisher, user="outbox", lease_seconds=6, ready=lambda: {RELAY: 0})

    await Resend(database, bench.publisher, user="outbox", after_seconds=5, give_up_seconds=60).round()
    await Expire(database, answer=_nobody, lease_seconds=6).round()
    await republish.lost_queues()
    await republish.overdue()
    await republish.orphaned()
    await republish.forgotten()
    await Housekeeping(database, retention(commands=90, artifacts=30)).round()
    async with Webhooks(Rules()) as webhooks, asyncio.TaskGroup() as group:
        deliveries = Deliveries(database, webhooks, give_up_seconds=60)
        hosting = group.create_task(deliveries.run())
        await asyncio.sleep(0)
        await deliveries.round()
        await deliveries.drain(30)
        hosting.cancel()

    ended = await bench.owner.fetch(
        "select state, last_error from deliveries where owner = 'outbox-filler' and tries = 1 order by conversation_id"
    )
    assert [tuple(row) for row in ended] == [
        ("abandoned", "the message was erased"),
        ("pending", "the URL must begin with https://"),
    ]
    assert len(database.plans) > 14
    assert database.read_whole() == []


async def _nobody(_: object) -> None:
    """Answers nobody."""
