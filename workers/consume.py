"""The one consume path: every command of every kind goes through here, from its delivery to its ack and its reply.

    take ─► admit ─► claim ──► run handler ─► commit ─► ack ─► reply
              │        │                        │
              │        ├─ ended: stored reply   └─ transient: wait in the broker, ack
              │        ├─ held or early: wait
              ▼        ▼
           dead letter (with its reason), ack

A relay's effect is its transaction, so `AtOnce` claims and commits it in one; `workers.settling` does what follows a
commit. Postgres away: nothing is acked, and the same batch is tried again until it works.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from contracts.envelope import milliseconds
from contracts.metrics import IN_FLIGHT, QUEUE_WAIT, TAKEOVERS
from contracts.settings import Settings
from workers import commits, runs
from workers.admission import admit
from workers.at_once import finish_at_once
from workers.claims import NotClaimed, Verdict, claim, mark_alone
from workers.dead_letters import DeadLetter, insert_dead_letters
from workers.deliveries import Admitted, Claimed, Delivery, Finished, Key
from workers.handler import Handler
from workers.intake import Intake
from workers.killpoints import KillPoints
from workers.registry import Registration
from workers.settling import Settling
from workers.transactions import bisected, until_answered

SUSPECT_CRASHES = 3
"""Crashes after which a message is run with nothing else in flight: it, or a neighbour, keeps killing workers.

The broker counts those of a delivery, and begins anew when a message has been in a wait queue; the claims are counted
in Postgres, and a worker that dies before its claim leaves no trace there. Either count makes a suspect.
"""


@dataclass(frozen=True, slots=True)
class Pool:
    """What a pool of workers serves, and how."""

    name: str
    queue: str
    kinds: frozenset[str]
    prefetch: int
    """Deliveries held."""
    places: int | None = None
    """Runs at once, where fewer than are held: others are claimed or committed meanwhile. None means all that are held."""
    at_once: bool = False
    """Its handler does no I/O: claim, effect and result are one transaction."""


class Consumer:
    """Runs the commands of one pool in this process.

    Args:
        pool: What to serve.
        handler: What to run.
        settings: Limits.
        database: asyncpg pool.
        intake: Where deliveries come from.
        settling: What follows a commit.
        registration: This worker's incarnation.
        kill_points: Test aid.
        held: `(publisher, id, token)` of all that this process runs; None when it runs nothing but this.
    """

    def __init__(
        self,
        pool: Pool,
        handler: Handler,
        *,
        settings: Settings,
        database: Any,
        intake: Intake,
        settling: Settling,
        registration: Registration,
        kill_points: KillPoints,
        held: Callable[[], Collection[tuple[str, UUID, int]]] | None = None,
    ) -> None:
        self._pool = pool
        self._handler = handler
        self._settings = settings
        self._database = database
        self._intake = intake
        self._settling = settling
        self._registration = registration
        self._kill = kill_points
        self._held = held or self.in_flight
        self._deadline = timedelta(seconds=settings.command_deadline_seconds)
        self._flights: dict[Key, Claimed | None] = {}
        self._twins: dict[Key, list[Delivery]] = {}
        self._finished: list[Finished] = []
        self._some_finished = asyncio.Event()
        self._landed = asyncio.Event()
        self._places = asyncio.Semaphore(pool.places or pool.prefetch)
        self._in_flight_gauge = IN_FLIGHT.labels(pool.name)

    def in_flight(self) -> Collection[tuple[str, UUID, int]]:
        """`(publisher, id, token)` of what this worker is running now."""
        return [(*key, claimed.token) for key, claimed in self._flights.items() if claimed is not None]

    @property
    def idle(self) -> bool:
        """Whether nothing is taken, running or waiting to be committed."""
        return not self._flights and not self._finished and not self._intake.waiting()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._commit_finished())
            group.create_task(self._sweep_sent())
            while True:
                deliveries = await self._intake.take(self._settings.batch_size)
                await self._start(group, deliveries)

    async def _start(self, group: asyncio.TaskGroup, deliveries: Sequence[Delivery]) -> None:
        batch, letters = self._admit(deliveries)
        if letters:
            await self._bury(letters)
        suspects = [one for one in batch if _is_suspect(one)]
        calm = [one for one in batch if not _is_suspect(one)]
        if calm:
            self._kill.reach("before_claim", len(calm), in_flight=self._intake.unacked())
            rest = await self._finish_at_once(calm) if self._pool.at_once else calm
            claimed, blamed = await self._claim(rest, max_crashes=SUSPECT_CRASHES - 1)
            suspects += blamed
            for one in claimed:
                group.create_task(self._fly(one))
        for suspect in suspects:
            await self._run_alone(suspect)

    def _admit(self, deliveries: Sequence[Delivery]) -> tuple[list[Admitted], list[tuple[Delivery, DeadLetter]]]:
        batch: list[Admitted] = []
        letters: list[tuple[Delivery, DeadLetter]] = []
        for delivery in deliveries:
            now = datetime.now(UTC)  # each its own: where the publisher gave no time, this one orders conversations
            one = admit(
                delivery,
                queue=self._pool.queue,
                kinds=self._pool.kinds,
                default_deadline=self._deadline,
                body_limit_bytes=self._settings.body_limit_bytes,
                now=now,
            )
            if isinstance(one, DeadLetter):
                letters.append((delivery, one))
            elif one.key in self._flights:
                # one flight per key: its twin is looked at again when that has landed
                self._twins.setdefault(one.key, []).append(delivery)
            elif one.envelope.not_before is not None and one.envelope.not_before > now:
                self._settling.wait(one, one.envelope.not_before, attempt=one.envelope.attempt)
            else:
                self._flights[one.key] = None
                batch.append(one)
                if one.envelope.not_before is None:  # one that was sent to wait has been here before
                    waited = max(0.0, (milliseconds(now) - milliseconds(one.envelope.accepted_at)) / 1000)
                    QUEUE_WAIT.labels(one.envelope.kind.name).observe(waited)
        self._in_flight_gauge.set(len(self._flights))
        return batch, letters

    async def _claim(
        self, batch: Sequence[Admitted], *, max_crashes: int | None = None
    ) -> tuple[list[Claimed], list[Admitted]]:
        """Claim a batch, but for suspects; what is not ours to run is settled here."""
        if not batch:
            return [], []

        async def attempt() -> tuple[list[Claimed], list[NotClaimed]]:
            async with self._database.acquire() as connection:
                return await claim(
                    connection,
                    batch,
                    holder=self._registration.incarnation,
                    lease_seconds=self._settings.lease_seconds,
                    in_flight=[token for _, _, token in self._held()],
                    max_crashes=max_crashes,
                )

        claimed, left = await until_answered(attempt)
        for one in claimed:
            self._flights[one.admitted.key] = one
            if one.taken_over:
                TAKEOVERS.labels(one.admitted.envelope.kind.name).inc()
        for other in left:
            if other.verdict is Verdict.SUSPECT:
                continue
            letter = self._settling.settle_unclaimed(other)
            if letter is not None:
                await self._bury([(other.admitted.delivery, letter)])
            self._land(other.admitted.key)
        if claimed:
            self._kill.reach("after_claim", len(claimed), in_flight=self._intake.unacked())
        return claimed, [other.admitted for other in left if other.verdict is Verdict.SUSPECT]

    async def _fly(self, claimed: Claimed, *, alone: int = 0) -> None:
        async with self._places:
            finished = await self._run(claimed, alone=alone)
        self._kill.reach("after_effect", in_flight=self._intake.unacked())
        self._finished.append(finished)
        self._some_finished.set()

    async def _run(self, claimed: Claimed, *, alone: int = 0) -> Finished:
        return await runs.run(
            claimed,
            self._handler,
            worker=self._registration.name,
            max_attempts=self._settings.max_attempts,
            alone=alone,
        )

    async def _run_alone(self, suspect: Admitted) -> None:
        """Run what was in flight in several crashes while nothing else is, so that only the guilty one is blamed."""
        await self._all_landed(but=suspect.key)
        for claimed in (await self._claim([suspect]))[0]:

            async def mark(one: Claimed = claimed) -> int:
                async with self._database.acquire() as connection:
                    return await mark_alone(connection, one)

            await self._fly(claimed, alone=await until_answered(mark))
        await self._all_landed()

    async def _all_landed(self, *, but: Key | None = None) -> None:
        while any(key != but and claimed is not None for key, claimed in self._flights.items()):
            self._landed.clear()
            await self._landed.wait()

    async def _finish_at_once(self, batch: Sequence[Admitted]) -> list[Admitted]:
        """Claim and finish relays in one transaction; returns those that need a claim of their own."""
        started_at = datetime.now(UTC)
        ready: list[Finished] = []
        for one in batch:
            if one.fault is None and one.envelope.deadline_at > started_at:
                first_run = Claimed(one, day=started_at.date(), token=0, attempt=1, crashes=0, started_at=started_at)
                finished = await self._run(first_run)
                if finished.result is not None and finished.error is None:
                    ready.append(finished)

        async def attempt(part: Sequence[Finished]) -> list[Finished]:
            async with self._database.acquire() as connection, connection.transaction():
                sent = self._settling.sent()
                done = await finish_at_once(
                    connection,
                    part,
                    sent=sent,
                    holder=self._registration.incarnation,
                    started_at=started_at,
                    finished_at=datetime.now(UTC),
                )
                self._kill.reach("after_claim", len(done), in_flight=self._intake.unacked())
                self._kill.reach("after_effect", len(done), in_flight=self._intake.unacked())
            self._settling.forget(sent)
            written = [one for one in part if one.claimed.admitted.key in done]
            for one in written:
                one.claimed.day, one.claimed.token = done[one.claimed.admitted.key]
            return written

        async def refuse(one: Finished, error: Exception) -> list[Finished]:
            # it goes on through a claim of its own, where its fault is recorded
            one.claimed.admitted.fault = runs.unrepresentable(error)
            return []

        written = await bisected(ready, attempt, refuse, pool=self._pool.name)
        await self._settle(written)
        done = {one.claimed.admitted.key for one in written}
        return [one for one in batch if one.key not in done]

    async def _commit_finished(self) -> None:
        while True:
            await self._some_finished.wait()
            self._some_finished.clear()
            batch, self._finished = self._finished, []

            async def attempt(part: Sequence[Finished]) -> list[Finished]:
                async with self._database.acquire() as connection, connection.transaction():
                    await self._delete_sent(connection)
                    tokens = await commits.commit(
                        connection, part, worker=self._registration.name, queue=self._pool.queue
                    )
                return [one for one in part if one.claimed.token in tokens]

            async def fail(one: Finished, error: Exception) -> list[Finished]:
                if one.error is not None and one.dead_letter:
                    raise error  # even its failure cannot be written: that is no fault of the row
                one.claimed.admitted.fault = runs.unrepresentable(error)
                return await until_answered(partial(attempt, [await self._run(one.claimed)]))

            for start in range(0, len(batch), self._settings.batch_size):
                part = batch[start : start + self._settings.batch_size]
                written = await bisected(part, attempt, fail, pool=self._pool.name)
                tokens = {one.claimed.token for one in written}
                await self._settle(written)
                for fenced in (one for one in part if one.claimed.token not in tokens):
                    self._settling.discard(fenced)
                    self._land(fenced.claimed.admitted.key)

    async def _delete_sent(self, connection: Any) -> None:
        """Confirmed outbox rows leave in the next batch's transaction; should that fail, they leave in a later one."""
        sent = self._settling.sent()
        if sent:
            await commits.forget_sent(connection, sent)
            self._settling.forget(sent)

    async def _sweep_sent(self) -> None:
        """Delete confirmed outbox rows when no batch comes by to do it; until cancelled."""
        while True:
            await asyncio.sleep(0.5)
            if self._settling.sent():

                async def attempt() -> None:
                    async with self._database.acquire() as connection:
                        await self._delete_sent(connection)

                await until_answered(attempt)

    async def _settle(self, written: Sequence[Finished]) -> None:
        if written:
            self._kill.reach("after_commit", len(written), in_flight=self._intake.unacked())
            await self._settling.settle(written)
            for one in written:
                self._land(one.claimed.admitted.key)

    async def _bury(self, letters: Sequence[tuple[Delivery, DeadLetter]]) -> None:
        async def attempt() -> None:
            async with self._database.acquire() as connection:
                await insert_dead_letters(connection, [letter for _, letter in letters])

        await until_answered(attempt)
        self._settling.count_dead_letters([letter for _, letter in letters])
        await self._settling.answer_refused(letters)

    def _land(self, key: Key) -> None:
        self._flights.pop(key, None)
        self._landed.set()
        for twin in self._twins.pop(key, ()):
            self._intake.put_back(twin)


def _is_suspect(one: Admitted) -> bool:
    return one.delivery.redelivered and one.envelope.delivery_count >= SUSPECT_CRASHES
