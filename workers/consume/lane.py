"""A lane: the consumer of one work queue with all that it needs; a worker runs one lane, or several beside each other.

The lanes of a process share its connection for publishing, its database pool and its incarnation.
"""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from yarl import URL

from contracts.amqp.publisher import Publisher
from contracts.restarting import restarting
from contracts.settings import Settings
from workers.amqp.subscription import Intake
from workers.consume.consumer import Consumer, Pool
from workers.consume.failpoints import KillPoints
from workers.consume.settlement import Settling
from workers.handler import Handler
from workers.store.heartbeat import Registration
from workers.store.publishers import PublisherKinds
from workers.task_cancellation import end


@dataclass(frozen=True, slots=True)
class Shared:
    """What all lanes of a process use."""

    settings: Settings
    database: Any
    """asyncpg pool."""
    registration: Registration
    publisher: Publisher
    kill_points: KillPoints
    kinds: PublisherKinds
    """Which kinds outside publishers may send."""
    lanes: "list[Lane]" = field(default_factory=list)
    """Those that are open now."""

    def in_flight(self) -> list[tuple[str, UUID, int]]:
        """`(publisher, id, token)` of everything that this process is running now."""
        return [one for lane in self.lanes for one in lane.consumer.in_flight()]

    def cancel(self, tokens: Collection[int]) -> None:
        """Stop what this process is running of these.

        Args:
            tokens: Of runs.
        """
        for lane in self.lanes:
            lane.consumer.cancel(tokens)


class Lane:
    """Consumes one queue and runs its commands.

    Args:
        pool: What to serve.
        handler: What to run.
        shared: What it has in common with the other lanes.
        intake: Where commands come from; None consumes the pool's queue.
        settling: What follows a commit; None does what is usual.
    """

    def __init__(
        self,
        pool: Pool,
        handler: Handler,
        shared: Shared,
        *,
        intake: Intake | None = None,
        settling: Settling | None = None,
    ) -> None:
        settings = shared.settings
        self._shared = shared
        self.intake = intake or Intake(
            settings.amqp_url, queue=pool.queue, prefetch=pool.prefetch, in_order=pool.at_once
        )
        self.settling = settling or Settling(
            queue=pool.queue,
            user=URL(settings.amqp_url).user or "",
            publisher=shared.publisher,
            intake=self.intake,
            kill_points=shared.kill_points,
        )
        self.consumer = Consumer(
            pool,
            handler,
            settings=settings,
            database=shared.database,
            intake=self.intake,
            settling=self.settling,
            registration=shared.registration,
            kill_points=shared.kill_points,
            held=shared.in_flight,
            publishers=shared.kinds,
        )

    @property
    def idle(self) -> bool:
        """Whether everything that was taken is finished, answered and forgotten."""
        return self.consumer.idle and self.settling.idle and not self.settling.sent()

    async def run(self) -> None:
        """Serve until cancelled."""
        with self._listed():
            async with asyncio.TaskGroup() as group:
                keep = partial(restarting, give_up_seconds=self._shared.settings.watchdog_seconds)
                tasks = [
                    group.create_task(keep("settling", self.settling.run)),
                    group.create_task(self.consumer.run()),
                    group.create_task(keep("consumer", self.intake.run)),
                ]
                try:
                    await asyncio.Event().wait()
                finally:
                    await end(reversed(tasks))

    async def drain(self, grace_seconds: float) -> None:
        """Take nothing new, and wait until everything taken is settled; what is not in time the broker gives to others.

        Args:
            grace_seconds: The longest wait.
        """
        await self.intake.stop_consuming()
        loop = asyncio.get_running_loop()
        limit = loop.time() + grace_seconds
        while loop.time() < limit and not self.idle:  # noqa: ASYNC110  # three parties' idleness, once in a lane's life
            await asyncio.sleep(0.05)

    @contextmanager
    def _listed(self) -> Iterator[None]:
        self._shared.lanes.append(self)
        try:
            yield
        finally:
            self._shared.lanes.remove(self)
