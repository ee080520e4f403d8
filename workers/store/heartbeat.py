"""A worker's row in `workers`: its incarnation, its heartbeat, and what happens when it was silent for too long."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from uuid import UUID, uuid4

from contracts.database import acquired, is_passing
from contracts.logs import get_logger
from contracts.service_errors import postgres_in_words

_REGISTER = """
insert into workers (incarnation, pool, host, pid, version, metrics_port) values ($1, $2, $3, $4, $5, $6)
on conflict (incarnation) do update set heartbeat_at = clock_timestamp()  -- written, and the answer was lost
"""
# The same question asks which of its commands are to be stopped: there is no other way that reaches every worker.
_BEAT = """
with alive as (
  update workers set heartbeat_at = clock_timestamp()
  where incarnation = $1 and heartbeat_at > clock_timestamp() - $2::interval and stopped_at is null
  returning incarnation
)
select array(
  select c.token from commands c where c.holder = alive.incarnation and c.state = 'running' and c.cancel_requested_at is not null
) as to_cancel
from alive
"""
_ADOPT = """
update commands set holder = $1
where holder = any ($2::uuid[]) and state = 'running' and token = any ($3::bigint[]) and (publisher, id) in (select * from unnest($4::text[], $5::uuid[]))
returning token
"""
# Held by an earlier incarnation and not in flight: the answer to the claim was lost, and nothing was begun.
_GIVE_BACK = """
update commands set state = 'queued', holder = null, attempt = attempt - 1, token = nextval('token_seq')
where state = 'running' and holder = any ($1::uuid[]) and token <> all ($2::bigint[])
"""
_MARGIN_SECONDS = 0.5
_FORMER = 100
"""Incarnations that are remembered."""
_STOP = "update workers set stopped_at = clock_timestamp(), heartbeat_at = '-infinity' where incarnation = $1"


class Registration:
    """This process's incarnation, kept alive by `beat`.

    Args:
        pool: asyncpg pool.
        pool_name: `relay`, `ai`, `android` or `outbox`.
        metrics_port: Where /metrics is served.
        lease_seconds: Age of a heartbeat at which others take over.
        heartbeat_seconds: Time between beats.
    """

    def __init__(
        self, pool: Any, *, pool_name: str, metrics_port: int, lease_seconds: float, heartbeat_seconds: float
    ) -> None:
        self._pool = pool
        self._pool_name = pool_name
        self._metrics_port = metrics_port
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._log = get_logger(pool=pool_name)
        self._confirmed_at = float("-inf")
        self.incarnation: UUID = uuid4()
        self.former: list[UUID] = []
        """Incarnations that this process had before, newest last; also such whose registration may have been lost."""
        self._starting_over = False
        self.name = f"{pool_name}@{socket.gethostname()}:{os.getpid()}"

    @property
    def sure_seconds(self) -> float:
        """For how long from now no other worker can take over what this one holds; 0 or less when one may have.

        Counted from before the last heartbeat that Postgres confirmed, and cut short by what a message may take from
        here to where it acts: a process that was frozen finds out by its own clock, without asking anybody.
        """
        margin = min(_MARGIN_SECONDS, self._lease_seconds / 5)
        return self._confirmed_at + self._lease_seconds - margin - time.monotonic()

    def is_still(self, incarnation: UUID) -> bool:
        """Whether this is the incarnation to begin a command under, and not one that is being given up.

        Args:
            incarnation: The one that claimed it.
        """
        return incarnation == self.incarnation and not self._starting_over

    async def register(self) -> None:
        """Write this incarnation's row.

        Raises:
            OSError, asyncpg.PostgresError, TimeoutError: Postgres is away.
        """
        began = time.monotonic()
        async with asyncio.timeout(10):
            await self._pool.execute(
                _REGISTER,
                self.incarnation,
                self._pool_name,
                socket.gethostname(),
                os.getpid(),
                product_version(),
                self._metrics_port,
            )
        self._confirmed_at = began

    async def beat(
        self,
        in_flight: Callable[[], Collection[tuple[str, UUID, int]]],
        *,
        cancel: Callable[[Collection[int]], None] | None = None,
    ) -> None:
        """Beat until cancelled. A beat that comes too late makes a new incarnation, which keeps what nobody took.

        Args:
            in_flight: `(publisher, id, token)` of what this worker is running now.
            cancel: Told the tokens of what is to be stopped.
        """
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._lease_seconds):
                    alive = await self._pool.fetchrow(_BEAT, self.incarnation, timedelta(seconds=self._lease_seconds))
                    if alive is None:
                        began = time.monotonic()
                        await self._start_over(in_flight)
                self._confirmed_at = began
                if alive is not None and alive["to_cancel"] and cancel is not None:
                    cancel(alive["to_cancel"])
            except Exception as error:
                if not is_passing(error):
                    raise
                self._log.warning("postgres_unreachable", error=postgres_in_words(error), doing="heartbeat")

    async def _start_over(self, in_flight: Callable[[], Collection[tuple[str, UUID, int]]]) -> None:
        """Take a new incarnation, which keeps what is in flight here and gives back what was never begun.

        A claim whose answer comes meanwhile is not begun: what is in flight must not change until this is on record.
        """
        old, new = self.incarnation, uuid4()
        self._starting_over = True
        try:
            held = in_flight()
            before = [*self.former, old]
            # the commit's answer may be lost: rows may be held by `new` from now on
            self.former = [*before, new][-_FORMER:]
            async with acquired(self._pool) as connection, connection.transaction():
                await connection.execute(
                    _REGISTER,
                    new,
                    self._pool_name,
                    socket.gethostname(),
                    os.getpid(),
                    product_version(),
                    self._metrics_port,
                )
                tokens = [token for _, _, token in held]
                adopted = await connection.fetch(
                    _ADOPT, new, before, tokens, [one for one, _, _ in held], [one for _, one, _ in held]
                )
                await connection.execute(_GIVE_BACK, before, tokens)
            self.incarnation, self.former = new, before[-_FORMER:]
        finally:
            self._starting_over = False
        self._log.warning("claims_lost", held=len(held), kept=len(adopted))

    async def stop(self) -> None:
        """Say that this worker is gone, so that nobody waits for its lease."""
        async with asyncio.timeout(5):
            await self._pool.execute(_STOP, self.incarnation)


def product_version() -> str:
    """The installed version; `unknown` when run from a bare checkout."""
    try:
        return version("ish-chat")
    except PackageNotFoundError:
        return "unknown"
