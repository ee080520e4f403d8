"""The one consume path: every command of every kind goes through here, from its delivery to its ack and its reply.

    take ─► admit ─► claim ──► run handler ─► commit ─► ack ─► reply
              │        │                        │
              │        ├─ ended: stored reply   └─ transient: wait in the broker, ack
              │        ├─ held or early: wait
              ▼        ▼
           dead letter (with its reason), ack

A relay's effect is its transaction, so `AtOnce` claims and commits it in one; `workers.consume.settlement` does what follows a
commit. Postgres away: nothing is acked, and the same batch is tried again until it works.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from contracts.database import ConnectionLost, acquired
from contracts.envelope import Refused, milliseconds
from contracts.errors import Cancelled, ErrorCode
from contracts.metrics import BATCH_SIZE, COMMIT_DURATION, IN_FLIGHT, QUEUE_WAIT, TAKEOVERS
from contracts.restarting import restarting, tell_fault
from contracts.settings import Settings
from workers.amqp.subscription import Intake
from workers.consume import execution
from workers.consume.admission import admit, dead_letter
from workers.consume.failpoints import KillPoints
from workers.consume.settlement import Settling
from workers.handler import Handler
from workers.stages import Admitted, Claimed, Delivery, Finished, Key
from workers.store import commits, positions, unclaimable
from workers.store.claims import NotClaimed, Verdict, claim, mark_alone
from workers.store.dead_letters import DeadLetter, bare, insert_dead_letters
from workers.store.heartbeat import Registration
from workers.store.publishers import Kinds
from workers.store.relay_commits import finish_at_once
from workers.store.transactions import bisected, until_answered

SUSPECT_CRASHES = 3
"""Crashes after which a message is run with nothing else in flight: it, or a neighbour, keeps killing workers.

The broker counts those of a delivery, and begins anew when a message has been in a wait queue; the claims are counted
in Postgres, and a worker that dies before its claim leaves no trace there. Either count makes a suspect.
"""

_AGAIN_SECONDS = 1.0
"""After an unforeseen error, what nothing has become of is looked at again."""
_LATER_SECONDS = 10.0
"""What cannot be written at all is tried again so often: it must not be lost, and it keeps nobody waiting."""


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
        publishers: Which kinds outside publishers may send; None leaves that to the broker.
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
        publishers: Kinds | None = None,
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
        self._publishers = publishers
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

    def cancel(self, tokens: Collection[int]) -> None:
        """Stop runs, each as soon as it can be stopped.

        Args:
            tokens: Of what is running here, or elsewhere.
        """
        for claimed in self._flights.values():
            if claimed is not None and claimed.token in tokens:
                claimed.cancellation.request()

    @property
    def idle(self) -> bool:
        """Whether nothing is taken, running or waiting to be committed."""
        return not self._flights and not self._finished and not self._intake.waiting()

    async def run(self) -> None:
        """Serve until cancelled."""
        limit_seconds = self._settings.watchdog_seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(restarting("commit", self._commit_finished, give_up_seconds=limit_seconds))
            group.create_task(restarting("sweep", self._sweep_sent, give_up_seconds=limit_seconds))
            await restarting("consume", partial(self._take, group), give_up_seconds=limit_seconds)

    async def _take(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._start(group, await self._intake.take(self._settings.batch_size))

    async def _start(self, group: asyncio.TaskGroup, deliveries: Sequence[Delivery]) -> None:
        batch, letters = self._admit(deliveries)
        try:
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
        except BaseException:
            for other in batch:
                if self._flights.get(other.key, other) is None:  # nothing has become of it yet: it comes again
                    self._settling.put_off(other.delivery, _AGAIN_SECONDS)
                    self._land(other.key)
            raise

    def _admit(self, deliveries: Sequence[Delivery]) -> tuple[list[Admitted], list[tuple[Delivery, DeadLetter]]]:
        batch: list[Admitted] = []
        letters: list[tuple[Delivery, DeadLetter]] = []
        for delivery in deliveries:
            now = datetime.now(UTC)  # each its own: where the publisher gave no time, this one orders conversations
            one = self._admitted(delivery, now)
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

    def _admitted(self, delivery: Delivery, now: datetime) -> Admitted | DeadLetter:
        try:
            return admit(
                delivery,
                queue=self._pool.queue,
                kinds=self._pool.kinds,
                default_deadline=self._deadline,
                body_limit_bytes=self._settings.body_limit_bytes,
                publishers=self._publishers,
                now=now,
            )
        except Exception as error:  # noqa: BLE001  # one message that meets a bug must not hold up those beside it
            tell_fault("admission", error)
            sentence = f"it cannot be read: {type(error).__name__}"
            return dead_letter(delivery, Refused(ErrorCode.INTERNAL, sentence), queue=self._pool.queue)

    async def _claim(
        self, batch: Sequence[Admitted], *, max_crashes: int | None = None
    ) -> tuple[list[Claimed], list[Admitted]]:
        """Claim a batch, but for suspects; what is not ours to run is settled here."""

        async def attempt(part: Sequence[Admitted]) -> list[Claimed | NotClaimed]:
            holder = self._registration.incarnation
            async with acquired(self._database) as connection:
                claimed, left = await claim(
                    connection,
                    part,
                    holder=holder,
                    former=self._registration.former,
                    lease_seconds=self._settings.lease_seconds,
                    in_flight=[token for _, _, token in self._held()],
                    max_crashes=max_crashes,
                )
            if not self._registration.is_still(holder):
                raise ConnectionLost("registered anew meanwhile: what was claimed for the old incarnation is not begun")
            for one in claimed:
                self._flights[one.admitted.key] = one
            return [*claimed, *left]

        async def blame(one: Admitted, error: Exception) -> list[Claimed | NotClaimed]:
            return await self._refuse(one, error, attempt)

        answers = await bisected(batch, attempt, blame, pool=self._pool.name)
        claimed = [one for one in answers if isinstance(one, Claimed)]
        left = [one for one in answers if isinstance(one, NotClaimed)]
        for one in claimed:
            if one.taken_over:
                TAKEOVERS.labels(one.admitted.envelope.kind.name).inc()
        suspects = [other.admitted for other in left if other.verdict is Verdict.SUSPECT]
        await self._settle_unclaimed([other for other in left if other.verdict is not Verdict.SUSPECT])
        if claimed:
            self._kill.reach("after_claim", len(claimed), in_flight=self._intake.unacked())
        return claimed, suspects

    async def _settle_unclaimed(self, others: Sequence[NotClaimed]) -> None:
        letters: list[tuple[Delivery, DeadLetter]] = []
        for other in others:
            letter = self._settling.settle_unclaimed(other)
            if letter is not None:
                letters.append((other.admitted.delivery, letter))
            self._land(other.admitted.key)
        await self._bury(letters)

    async def _refuse(
        self,
        one: Admitted,
        error: Exception,
        attempt: Callable[[Sequence[Admitted]], Awaitable[list[Claimed | NotClaimed]]],
    ) -> list[Claimed | NotClaimed]:
        """End a command that cannot be claimed: as failed on record, or else as a dead letter with a reply."""
        tell_fault("claim", error, command_id=str(one.envelope.id))
        one.fault = execution.unrepresentable(error)
        try:
            return await until_answered(lambda: attempt([unclaimable.bare(one)]), tries=1)
        except Exception as again:  # noqa: BLE001  # its own row cannot be written, whatever is in it
            tell_fault("claim", again, command_id=str(one.envelope.id))

        async def record() -> DeadLetter:
            async with acquired(self._database) as connection, connection.transaction():
                return await unclaimable.record(connection, one, queue=self._pool.queue, worker=self._registration.name)

        try:
            letter = await until_answered(record)
        except Exception as last:  # noqa: BLE001  # it stays in the broker, and those beside it go on
            tell_fault("claim", last, command_id=str(one.envelope.id))
            self._settling.put_off(one.delivery, _LATER_SECONDS)
        else:
            self._settling.count_dead_letters([letter])
            await self._intake.ack([one.delivery])
        self._land(one.key)
        return []

    async def _fly(self, claimed: Claimed, *, alone: int = 0) -> None:
        if self._places.locked():
            finished = await self._run_in_turn(claimed, alone=alone)
        else:
            async with self._places:
                finished = await self._run(claimed, alone=alone)
        self._kill.reach("after_effect", in_flight=self._intake.unacked())
        self._finish(finished)

    def _finish(self, finished: Finished) -> None:
        self._finished.append(finished)
        self._some_finished.set()

    async def _run_in_turn(self, claimed: Claimed, *, alone: int) -> Finished:
        """Wait for a place; one that its owner cancels meanwhile needs none."""
        try:
            async with claimed.cancellation.interruptible():
                await self._places.acquire()
        except Cancelled:
            return await self._run(claimed, alone=alone)
        try:
            return await self._run(claimed, alone=alone)
        finally:
            self._places.release()

    async def _run(self, claimed: Claimed, *, alone: int = 0) -> Finished:
        return await execution.run(
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
                async with acquired(self._database) as connection:
                    return await mark_alone(connection, one)

            try:
                times = await until_answered(mark)
            except Exception as error:  # noqa: BLE001  # it is claimed, and has to be run
                tell_fault("claim", error, command_id=str(claimed.admitted.envelope.id))
                times = 1
            await self._fly(claimed, alone=times)
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
            begun = time.monotonic()
            async with acquired(self._database) as connection, connection.transaction():
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
            self._observe(part, begun)
            self._settling.forget(sent)
            written = [one for one in part if one.claimed.admitted.key in done]
            for one in written:
                one.claimed.day, one.claimed.token = done[one.claimed.admitted.key]
            return written

        async def refuse(one: Finished, error: Exception) -> list[Finished]:
            if positions.collides(error):
                with suppress(Exception):
                    return await self._behind_older_lines(one, attempt)
            # it goes on through a claim of its own, where its fault is recorded
            one.claimed.admitted.fault = execution.unrepresentable(error)
            return []

        written = await bisected(ready, attempt, refuse, pool=self._pool.name)
        await self._settle(written)
        done = {one.claimed.admitted.key for one in written}
        return [one for one in batch if one.key not in done]

    async def _commit_finished(self) -> None:
        while True:
            await self._some_finished.wait()
            self._some_finished.clear()
            while self._finished:
                part = self._finished[: self._settings.batch_size]
                self._finished = self._finished[self._settings.batch_size :]
                try:
                    await self._commit(part)
                except BaseException:
                    # what is not settled is committed again: found on record, it is looked at like a duplicate
                    self._finished = [one for one in part if self._is_in_flight(one)] + self._finished
                    self._some_finished.set()
                    raise

    async def _commit(self, part: Sequence[Finished]) -> None:
        kept: set[int] = set()

        async def attempt(batch: Sequence[Finished]) -> list[Finished]:
            begun = time.monotonic()
            async with acquired(self._database) as connection, connection.transaction():
                await self._delete_sent(connection)
                tokens = await commits.commit(connection, batch, worker=self._registration.name, queue=self._pool.queue)
            self._observe(batch, begun)
            return [one for one in batch if one.claimed.token in tokens]

        async def fail(one: Finished, error: Exception) -> list[Finished]:
            if positions.collides(error):
                with suppress(Exception):
                    return await self._behind_older_lines(one, attempt)
            tell_fault("commit", error, command_id=str(one.claimed.admitted.envelope.id))
            one.claimed.admitted.fault = execution.unrepresentable(error)
            failed = await self._run(one.claimed)
            try:
                return await until_answered(partial(bare_attempt, failed))
            except Exception as again:  # noqa: BLE001  # it holds this result alone, and is not run again
                tell_fault("commit", again, command_id=str(one.claimed.admitted.envelope.id))
                kept.add(one.claimed.token)
                asyncio.get_running_loop().call_later(_LATER_SECONDS, self._finish, failed)
                return []

        async def bare_attempt(failed: Finished) -> list[Finished]:
            async with acquired(self._database) as connection, connection.transaction():
                written = await commits.commit_failure(
                    connection, failed, worker=self._registration.name, queue=self._pool.queue
                )
            return [failed] if written else []

        written = await bisected(part, attempt, fail, pool=self._pool.name)
        tokens = {one.claimed.token for one in written} | kept
        await self._settle(written)
        for fenced in (one for one in part if one.claimed.token not in tokens):
            self._settling.discard(fenced)
            self._land(fenced.claimed.admitted.key)

    async def _behind_older_lines(
        self, one: Finished, attempt: Callable[[Sequence[Finished]], Awaitable[list[Finished]]]
    ) -> list[Finished]:
        """Write a command whose id had another meaning long ago, of which the conversation's lines are still kept."""

        async def look() -> int:
            async with acquired(self._database) as connection:
                return await positions.first_free(connection, one.claimed.admitted.key)

        one.first_position = await until_answered(look)
        return await until_answered(lambda: attempt([one]))

    def _is_in_flight(self, one: Finished) -> bool:
        return self._flights.get(one.claimed.admitted.key) is one.claimed

    def _observe(self, batch: Sequence[Finished], begun: float) -> None:
        BATCH_SIZE.labels(self._pool.name).observe(len(batch))
        COMMIT_DURATION.labels(self._pool.name).observe(time.monotonic() - begun)

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
                    async with acquired(self._database) as connection:
                        await self._delete_sent(connection)

                await until_answered(attempt)

    async def _settle(self, written: Sequence[Finished]) -> None:
        if written:
            self._kill.reach("after_commit", len(written), in_flight=self._intake.unacked())
            await self._settling.settle(written)
            for one in written:
                self._land(one.claimed.admitted.key)

    async def _bury(self, letters: Sequence[tuple[Delivery, DeadLetter]]) -> None:
        """Keep messages that are not run; one that cannot be kept stays in the broker, and is looked at again."""

        async def attempt(part: Sequence[tuple[Delivery, DeadLetter]]) -> Sequence[tuple[Delivery, DeadLetter]]:
            async with acquired(self._database) as connection:
                await insert_dead_letters(connection, [letter for _, letter in part])
            return part

        async def strip(one: tuple[Delivery, DeadLetter], error: Exception) -> Sequence[tuple[Delivery, DeadLetter]]:
            delivery, letter = one
            tell_fault("dead letter", error, message_id=letter.message_id)
            try:
                return await until_answered(lambda: attempt([(delivery, bare(letter))]))
            except Exception as again:  # noqa: BLE001  # those beside it go on
                tell_fault("dead letter", again, message_id=letter.message_id)
                self._settling.put_off(delivery, _LATER_SECONDS)
                return []

        buried = await bisected(letters, attempt, strip, pool=self._pool.name)
        self._settling.count_dead_letters([letter for _, letter in buried])
        await self._settling.answer_refused(buried)

    def _land(self, key: Key) -> None:
        self._flights.pop(key, None)
        self._landed.set()
        for twin in self._twins.pop(key, ()):
            self._intake.put_back(twin)


def _is_suspect(one: Admitted) -> bool:
    return one.delivery.redelivered and one.envelope.delivery_count >= SUSPECT_CRASHES
