"""Reads commands from PostgreSQL, scoped to their owner: one function per question, its SQL beside it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway import PUBLISHER
from gateway.services.database import Database
from gateway.services.waiting_for import read_waiting

_READ_SECONDS = 1.0
_LIST_SECONDS = 2.0

# By primary key: over HTTP the gateway is the publisher; an owner's own system may have published directly.
ONE = """
select c.publisher, c.id, c.kind, c.state, c.attempt, c.owner, c.correlation_id, c.accepted_at, c.deadline_at,
  c.started_at, c.finished_at, c.retry_at, c.cancel_requested_at, c.result,
  (
    select coalesce(json_agg(json_build_object(
      'attempt', a.attempt, 'worker', a.worker, 'target', a.target, 'started_at', a.started_at,
      'duration_seconds', a.duration_seconds, 'outcome', a.outcome,
      'error', case when a.error_code is not null
        then json_build_object('code', a.error_code, 'message', a.error_message) end,
      'tokens_in', a.tokens_in, 'tokens_out', a.tokens_out, 'cost_usd', a.cost_usd, 'details', a.details
    ) order by a.attempt, a.token), '[]')::text
    from attempts a where a.publisher = c.publisher and a.id = c.id and a.day = c.day
  ) as attempts
from commands c
where c.publisher = $1 and c.id = $2 and c.owner = $3
  and c.day = (select day from command_keys where publisher = $1 and id = $2)
"""

_STATE = """
select c.publisher, c.state, c.kind, case when c.state = 'running' then c.payload end as payload from commands c
where c.publisher = $1 and c.id = $2 and c.owner = $3
  and c.day = (select day from command_keys where publisher = $1 and id = $2)
"""

# Its worker asks with its next heartbeat, whichever it is by then.
_REQUEST_CANCEL = """
update commands set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
where publisher = $1 and id = $2 and day = (select day from command_keys where publisher = $1 and id = $2)
  and state = 'running'
returning 1
"""

# In the order of the index commands_by_owner.
PAGE = """
select id, kind, state, accepted_at, deadline_at, started_at, finished_at, error_code from commands
where owner = $1 and accepted_at <= $2 and (accepted_at < $2 or id > $3)
  and ($4::text is null or kind = $4) and ($5::text is null or state = $5)
order by accepted_at desc, id
limit $6
"""


async def find(database: Database, owner: str, command_id: UUID, *, lease_seconds: float) -> Mapping[str, Any] | None:
    """One command with its attempts and what it waits for (`waiting_for`); None when its owner has none of that id.

    Args:
        database: Where commands are stored.
        owner: Who asks.
        command_id: The command.
        lease_seconds: Age of a heartbeat at which its worker is gone.

    Raises:
        DatabaseAway: PostgreSQL does not answer.
    """

    async def work(connection: Any) -> Mapping[str, Any] | None:
        row = await _first(connection, ONE, owner, command_id)
        if row is None or row["result"] is not None:
            return row and {**row, "waiting_for": None}
        publisher = row["publisher"]
        waiting = await read_waiting(connection, [publisher], [command_id], lease_seconds=lease_seconds)
        return {**row, "waiting_for": waiting.get((publisher, command_id))}

    return await database.run(work, timeout_seconds=_READ_SECONDS)


async def find_state(database: Database, owner: str, command_id: UUID) -> Any:
    """Publisher, kind and state of one command, and its payload while it runs; None when its owner has none of that id.

    Args:
        database: Where commands are stored.
        owner: Who asks.
        command_id: The command.

    Raises:
        DatabaseAway: PostgreSQL does not answer.
    """
    return await database.run(
        lambda connection: _first(connection, _STATE, owner, command_id), timeout_seconds=_READ_SECONDS
    )


async def request_cancel(database: Database, publisher: str, command_id: UUID) -> bool:
    """Ask for a running command to be stopped; False when it does not run any more.

    Args:
        database: Where commands are stored.
        publisher: Its publisher.
        command_id: The command.

    Raises:
        DatabaseAway: PostgreSQL does not answer.
    """
    row = await database.fetchrow(_REQUEST_CANCEL, publisher, command_id, timeout_seconds=_LIST_SECONDS)
    return row is not None


async def _first(connection: Any, query: str, owner: str, command_id: UUID) -> Any:
    row = await connection.fetchrow(query, PUBLISHER, command_id, owner)
    return row or await connection.fetchrow(query, owner, command_id, owner)


async def page(
    database: Database,
    owner: str,
    *,
    after: tuple[datetime, UUID],
    kind: str | None,
    state: str | None,
    limit: int,
) -> list[Any]:
    """Some of an owner's commands, newest first.

    Args:
        database: Where commands are stored.
        owner: Who asks.
        after: The row that the page comes after.
        kind: Only these; None for all.
        state: Only these; None for all.
        limit: Rows at the most.

    Raises:
        DatabaseAway: PostgreSQL does not answer in time.
    """
    accepted_at, command_id = after
    return await database.fetch(PAGE, owner, accepted_at, command_id, kind, state, limit, timeout_seconds=_LIST_SECONDS)
