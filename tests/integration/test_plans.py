"""Every statement of the hot path reads by an index, on tables that hold many rows."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from contracts.database import SERVER_SETTINGS
from contracts.errors import ErrorCode, Expired
from contracts.ledger import end_command
from contracts.results import State
from ops.stack.session import Session
from workers.consume import execution
from workers.handler import Message, Outcome
from workers.store import commits
from workers.store.claims import claim, claim_known, mark_alone
from workers.store.commits import OutboxKey
from workers.store.conversations import BEFORE
from workers.store.relay_commits import finish_at_once

BIG = "commands|command_keys|outbox|messages|conversations|deliveries|attempts|workers"


class Explaining:
    """A connection that also asks for the plan of everything it execution."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.plans: list[str] = []

    async def _explain(self, sql: str, arguments: tuple[Any, ...]) -> None:
        rows = await self._connection.fetch(f"explain {sql}", *arguments)
        self.plans.append("\n".join(row[0] for row in rows))

    async def fetch(self, sql: str, *arguments: Any) -> Any:
        await self._explain(sql, arguments)
        return await self._connection.fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: Any) -> Any:
        await self._explain(sql, arguments)
        return await self._connection.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        await self._explain(sql, arguments)
        return await self._connection.fetchval(sql, *arguments)

    async def execute(self, sql: str, *arguments: Any) -> Any:
        await self._explain(sql, arguments)
        return await self._connection.execute(sql, *arguments)

    def transaction(self) -> Any:
        return self._connection.transaction()

    def read_whole(self) -> list[str]:
        """Scans of a big table that are not the look-up of one key by an index."""
        scan = re.compile(rf"Scan\b.* on ({BIG})(_\d+)?\b")
        key = re.compile(r"Index Cond: .*\b(id|token|incarnation) = ")
        lines = [line for plan in self.plans for line in plan.splitlines()]
        return [
            line.strip()
            for line, following in zip(lines, [*lines[1:], ""], strict=True)
            if scan.search(line) and not ("Index" in line and key.search(following))
        ]


@pytest.fixture(scope="module")
async def filled(services: Session) -> None:
    connection = await asyncpg.connect(services.postgres_url("ish_owner"))
    await connection.execute(
        """
        insert into command_keys (publisher, id, fingerprint)
        select 'filler', gen_random_uuid(), 'x' from generate_series(1, 20000);
        insert into commands (publisher, id, day, kind, owner, state, routing_key, payload, accepted_at, deadline_at)
        select publisher, id, day, 'relay', 'filler', 'succeeded', 'relay', '{}', now(), now()
        from command_keys where publisher = 'filler';
        analyze command_keys;
        insert into messages
          (publisher, command_id, position, owner, conversation_id, sender, text, metadata, sent_at, accepted_at)
        select 'filler', gen_random_uuid(), 0, 'filler', 'room ' || i % 20, 'user', 'hello', '{}', now(), now()
        from generate_series(1, 20000) i;
        analyze messages;
        insert into outbox (token, part, publisher, id, kind, status, owner, body, accepted_at, deadline_at)
        select -i, 0, 'filler', gen_random_uuid(), 'relay', 'succeeded', 'filler', '{}', now(), now()
        from generate_series(1, 300) i;
        delete from outbox where publisher = 'filler';
        analyze outbox; -- as autovacuum finds it when all was sent: a plan of that moment is kept
        """
    )
    # as autovacuum does: it analyzes what has changed, and leaves empty partitions alone
    partition = await connection.fetchval("select tableoid::regclass::text from commands limit 1")
    await connection.execute(f"analyze {partition}")
    await connection.close()


@pytest.fixture
async def explaining(services: Session, filled: None) -> AsyncIterator[Explaining]:
    del filled
    connection = await asyncpg.connect(services.postgres_url("ish_worker"), server_settings=SERVER_SETTINGS)
    yield Explaining(connection)
    await connection.close()


async def test_claiming_reads_by_key(explaining: Explaining, make_admitted: Any) -> None:
    batch = [make_admitted() for _ in range(20)]

    claimed, _ = await claim(explaining, batch, holder=uuid4(), lease_seconds=6, in_flight=[])
    await claim_known(explaining, batch, holder=uuid4(), lease_seconds=6, in_flight=[1])
    await mark_alone(explaining, claimed[0])

    assert len(explaining.plans) == 3
    assert explaining.read_whole() == []


async def test_committing_reads_by_key(explaining: Explaining, make_admitted: Any) -> None:
    holder: UUID = uuid4()
    claimed, _ = await claim(
        explaining, [make_admitted() for _ in range(20)], holder=holder, lease_seconds=6, in_flight=[]
    )
    now = datetime.now(UTC)
    line = Message("c1", "user", "hi", now)
    finished = [
        execution.finish(one, Outcome({}, messages=(line,)), worker="w", started_at=now, seconds=0) for one in claimed
    ]

    async with explaining.transaction():
        await commits.commit(explaining, finished, worker="w", queue="ish.ai")
        ready = [
            execution.finish(
                replace(one, admitted=make_admitted()),
                Outcome({}, messages=(line,)),
                worker="w",
                started_at=now,
                seconds=0,
            )
            for one in claimed
        ]
        await finish_at_once(explaining, ready, sent=[OutboxKey(1, 0)], holder=holder, started_at=now, finished_at=now)
        await commits.forget_sent(explaining, [OutboxKey(1, 0)])

    assert len(explaining.plans) == 8
    assert explaining.read_whole() == []


async def test_the_newest_lines_of_a_conversation_are_read_in_order_by_an_index(explaining: Explaining) -> None:
    lines = await explaining.fetch(BEFORE, "filler", "room 7", datetime.now(UTC), uuid4(), 500)

    assert len(lines) == 500
    [plan] = explaining.plans
    assert "Index Scan Backward using messages_by_conversation" in plan
    assert "Sort" not in plan


async def test_ending_a_waiting_command_reads_by_key(services: Session, filled: None, make_admitted: Any) -> None:
    del filled
    connection = await asyncpg.connect(services.postgres_url("ish_outbox"), server_settings=SERVER_SETTINGS)
    explaining = Explaining(connection)

    one = make_admitted()
    await end_command(
        explaining, one.envelope.publisher, one.envelope.id, State.EXPIRED, Expired(ErrorCode.DEADLINE_PASSED, "late")
    )

    assert explaining.plans
    assert explaining.read_whole() == []
    await connection.close()
