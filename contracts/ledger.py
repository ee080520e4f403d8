"""Ends commands that no worker holds: cancelled by their owner, overdue, unroutable, dead-lettered by the broker.

The gateway and the outbox worker both do this, so that the one transaction (terminal row with its stored result, and the
outbox row that sends it) has one copy. Workers end the commands they hold in `workers.store.commits`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from contracts.envelope import Envelope
from contracts.errors import CommandError
from contracts.results import State, encode_result
from contracts.tables import ENVELOPE_COLUMNS, OutboxRow, envelope_of, write_outbox


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has just been ended here."""

    token: int
    """Its outbox row is (token, 0); whoever has the reply confirmed may delete it."""
    envelope: Envelope
    status: State
    body: bytes


_LOCK = f"""
select {ENVELOPE_COLUMNS}, day, started_at from (
  select * from commands
  where publisher = $1 and id = $2 and day = (select day from command_keys where publisher = $1 and id = $2)
  offset 0 for update
) c
where state = any($3)
"""  # noqa: S608  # a constant of this module

_END = """
update commands set state = $4, result = $5, error_code = $6, finished_at = $7, retry_at = null,
  token = nextval('token_seq'), holder = null
where publisher = $1 and id = $2 and day = $3
returning token
"""

WAITING = (State.QUEUED, State.RETRYING)


async def end_command(
    connection: Any,
    publisher: str,
    command_id: UUID,
    status: State,
    error: CommandError,
    *,
    from_states: tuple[State, ...] = WAITING,
) -> Ended | None:
    """End one command that is not running, in one transaction: its result and the outbox row that sends it.

    Args:
        connection: A connection that is in no transaction, or in the caller's.
        publisher: The command's publisher.
        command_id: The command.
        status: A terminal state.
        error: Why; becomes the result's `error`.
        from_states: The states it may be ended from.

    Returns:
        What was ended; None when the command is unknown or in no such state (it is running, or has ended).
    """
    async with connection.transaction():
        row = await connection.fetchrow(_LOCK, publisher, command_id, [state.value for state in from_states])
        if row is None:
            return None
        envelope, finished_at = envelope_of(row), datetime.now(UTC)
        body = encode_result(
            envelope,
            status,
            error=error,
            attempts=row["attempt"],
            started_at=row["started_at"],
            finished_at=finished_at,
            worker=None,
        )
        token = await connection.fetchval(
            _END, publisher, command_id, row["day"], status.value, body.decode(), error.code.value, finished_at
        )
        await write_outbox(connection, [OutboxRow(token, 0, envelope, status.value, body)])
    return Ended(token, envelope, status, body)
