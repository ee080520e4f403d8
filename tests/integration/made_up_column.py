"""`python -m tests.integration.made_up_column URL`: adds a column to commands in one place, and runs every writer once.

A process of its own: the statements are made when their modules are imported, so the column has to be there before.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from contracts import tables
from contracts.commands import KINDS, decode_payload, fingerprint
from contracts.envelope import Envelope


async def main(url: str) -> None:
    """Print what each writer wrote, as JSON: its name, the command's id and the column's value."""
    tables.COMMAND = tables.Columns(*tables.COMMAND, tables.Column("made_up", "text", _made_up))
    connection = await asyncpg.connect(url)
    await connection.execute("alter table commands add column made_up text")
    written = {name: await write(connection) for name, write in WRITERS.items()}
    rows = await connection.fetch("select id, made_up from commands")
    values = {row["id"]: row["made_up"] for row in rows}
    await connection.close()
    json.dump({name: [str(id_), values.get(id_)] for name, id_ in written.items()}, sys.stdout)


def _made_up(row: tables.CommandRow) -> str:
    return f"made up for {row.envelope.id}"


def _admitted() -> Any:
    from workers.stages import Admitted, Delivery  # noqa: PLC0415  # after the column

    kind, body, now = (
        KINDS["relay"],
        b'{"sender":"user","message":"b","timestamp":"2026-01-01T00:00:00Z"}',
        datetime.now(UTC),
    )
    envelope = Envelope("demo", uuid4(), kind, "demo", now, now + timedelta(hours=1))
    delivery = Delivery(1, 1, "relay", SimpleNamespace(headers={}), body, 0.0)
    return Admitted(
        delivery, envelope, decode_payload(kind, body), body.decode(), fingerprint("relay", body), repeatable=True
    )


async def _claim(connection: Any) -> UUID:
    from workers.store.claims import claim  # noqa: PLC0415

    one = _admitted()
    await claim(connection, [one], holder=uuid4(), lease_seconds=6, in_flight=[])
    return _id(one)


async def _commit_relay(connection: Any) -> UUID:
    from workers.consume import execution  # noqa: PLC0415
    from workers.handler import Outcome  # noqa: PLC0415
    from workers.stages import Claimed  # noqa: PLC0415
    from workers.store.relay_commits import finish_at_once  # noqa: PLC0415

    one, now = _admitted(), datetime.now(UTC)
    claimed = Claimed(one, day=now.date(), token=0, attempt=1, crashes=0, started_at=now)
    ready = execution.finish(claimed, Outcome({}), worker="w", started_at=now, seconds=0.1)
    async with connection.transaction():
        await finish_at_once(connection, [ready], sent=[], holder=uuid4(), started_at=now, finished_at=now)
    return _id(one)


async def _record_accepted(connection: Any) -> UUID:
    from gateway.services.recorder import record  # noqa: PLC0415

    one = _admitted()
    await record(connection, [one.row])
    return _id(one)


async def _record_dead_lettered(connection: Any) -> UUID:
    from workers.outbox.dead_letters.recorder import record  # noqa: PLC0415

    one = _admitted()
    await record(connection, one.row)
    return _id(one)


def _id(one: Any) -> UUID:
    id_: UUID = one.envelope.id
    return id_


WRITERS = {
    "a worker that claims": _claim,
    "a worker that commits relays": _commit_relay,
    "a gateway that records": _record_accepted,
    "an outbox worker that records a dead letter": _record_dead_lettered,
}

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
