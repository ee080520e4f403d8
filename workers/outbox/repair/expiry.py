"""Ends commands that no worker holds: their deadline has passed, or they were put off when their owner cancelled them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from contracts.database import acquired, is_passing
from contracts.errors import CommandError, ErrorCode, Expired, Indeterminate
from contracts.ledger import end_command
from contracts.metrics import COMMANDS
from contracts.restarting import tell_fault
from contracts.results import State
from workers.cancellation import cancelled
from workers.retry_policy import too_late

_BATCH = 50
_ABANDONED_AFTER = timedelta(seconds=60)
"""A worker that lives ends its own command at the deadline; after this nobody does."""
_POSTPONED_SECONDS = 60.0

# `skip locked`: this never waits for a worker's batch, and so never deadlocks with one
_OVERDUE = """
select publisher, id, error_code from commands
where state in ('queued', 'retrying') and deadline_at < clock_timestamp() and id <> all ($2::uuid[])
order by deadline_at limit $1 for update skip locked
"""
# Asked for while it ran, and it ended with an error that passes: it would be tried again only to be cancelled.
_CANCELLED = """
select publisher, id from commands
where state = 'retrying' and cancel_requested_at is not null and id <> all ($2::uuid[])
limit $1 for update skip locked
"""
_ABANDONED = """
select c.publisher, c.id, c.repeatable from commands c
where c.state = 'running' and c.deadline_at < clock_timestamp() - $2::interval and c.id <> all ($4::uuid[]) and not exists (
  select from workers x where x.incarnation = c.holder and x.heartbeat_at > clock_timestamp() - $3::interval
)
order by c.deadline_at limit $1 for update of c skip locked
"""


class Expire:
    """The job.

    Args:
        database: asyncpg pool.
        answer: Sends the results of commands that were ended, by the tokens of their outbox rows.
        lease_seconds: Age of a heartbeat at which its worker is gone.
    """

    def __init__(
        self, database: Any, *, answer: Callable[[Sequence[int]], Awaitable[None]], lease_seconds: float
    ) -> None:
        self._database = database
        self._answer = answer
        self._lease = timedelta(seconds=lease_seconds)
        self._postponed: dict[UUID, float] = {}
        """Ids of commands that could not be ended, and `loop.time()` at which that is tried again."""

    async def round(self) -> bool:
        """End a batch of each sort.

        Returns:
            Whether there may be more.
        """
        now = asyncio.get_running_loop().time()
        self._postponed = {one: until for one, until in self._postponed.items() if until > now}
        async with acquired(self._database) as connection:
            async with connection.transaction():
                overdue = await connection.fetch(_OVERDUE, _BATCH, list(self._postponed))
                tokens = await self._end(
                    connection,
                    [(row, State.EXPIRED, too_late(_NOT_RUN, waited_for=row["error_code"])) for row in overdue],
                    from_state=(State.QUEUED, State.RETRYING),
                )
            async with connection.transaction():
                stopped = await connection.fetch(_CANCELLED, _BATCH, list(self._postponed))
                tokens += await self._end(
                    connection, [(row, State.CANCELLED, cancelled()) for row in stopped], from_state=(State.RETRYING,)
                )
            async with connection.transaction():
                postponed = list(self._postponed)
                abandoned = await connection.fetch(_ABANDONED, _BATCH, _ABANDONED_AFTER, self._lease, postponed)
                tokens += await self._end(
                    connection, [(row, *_verdict(row)) for row in abandoned], from_state=(State.RUNNING,)
                )
        await self._answer(tokens)
        return _BATCH in (len(overdue), len(stopped), len(abandoned))

    async def _end(
        self, connection: Any, verdicts: Sequence[tuple[Any, State, CommandError]], *, from_state: tuple[State, ...]
    ) -> list[int]:
        """End these; one that cannot be ended is left alone for a while, and those behind it have their turn."""
        tokens = []
        for row, status, error in verdicts:
            try:
                ended = await end_command(
                    connection, row["publisher"], row["id"], status, error, from_states=from_state
                )
            except Exception as fault:
                if is_passing(fault):
                    raise
                tell_fault("expire", fault, command_id=str(row["id"]))
                self._postponed[row["id"]] = asyncio.get_running_loop().time() + _POSTPONED_SECONDS
                continue
            if ended is not None:
                tokens.append(ended.token)
                COMMANDS.labels(ended.envelope.kind.name, status.value).inc()
        return tokens


_NOT_RUN = "its deadline passed before it was finished"
_UNKNOWN = "its worker died in the middle of an effect that must not be repeated, and its deadline has passed"


def _verdict(row: Any) -> tuple[State, CommandError]:
    if row["repeatable"]:
        return State.EXPIRED, Expired(ErrorCode.DEADLINE_PASSED, _NOT_RUN)
    return State.INDETERMINATE, Indeterminate(ErrorCode.INDETERMINATE, _UNKNOWN)
