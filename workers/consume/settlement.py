"""What follows a commit: the ack, the reply and the follow-ups; and the waits of what is not finished.

The ack goes first and the reply right after it: the outbox row is on record, so a reply that is not confirmed (its queue
is full or gone, the broker went away, this worker died) is sent again by the outbox worker, and no command waits for it.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from contracts import metrics
from contracts.amqp.messages import (
    Refusal,
    outbox_messages,
    refusal_message,
    result_messages,
    waiting_message,
)
from contracts.amqp.publisher import Publisher, PublishFailed, Refused, Unroutable
from contracts.errors import ErrorCode
from contracts.logs import get_logger
from contracts.restarting import tell_fault, was_cancelled
from contracts.results import State
from workers.amqp.subscription import Intake
from workers.consume.failpoints import KillPoints
from workers.retry_policy import LOCAL_WAIT_SECONDS
from workers.stages import Admitted, Delivery, Finished
from workers.store.claims import NotClaimed, Verdict
from workers.store.commits import OutboxKey, outbox_rows
from workers.store.dead_letters import DeadLetter, dead_letter_of

_HELD_POLL_SECONDS = 0.3
_HELD_WAIT = timedelta(seconds=5)
_WAIT_TRIES = 3
_AGAIN_SECONDS = 1.0
"""After an unforeseen error."""


class Settling:
    """Acks, replies and waits of one worker.

    Args:
        queue: The work queue.
        user: This process's own RabbitMQ user.
        publisher: Where replies and waits are published.
        intake: Where deliveries are acked.
        kill_points: Test aid.
    """

    def __init__(self, *, queue: str, user: str, publisher: Publisher, intake: Intake, kill_points: KillPoints) -> None:
        self._queue = queue
        self._user = user
        self._publisher = publisher
        self._intake = intake
        self._kill = kill_points
        self._group: asyncio.TaskGroup | None = None
        self._busy = 0
        self._sent: list[OutboxKey] = []
        self._log = get_logger(queue=queue)

    async def run(self) -> None:
        """Host the tasks that wait for confirms, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    @property
    def idle(self) -> bool:
        """Whether no reply or wait is on its way."""
        return self._busy == 0

    def sent(self) -> list[OutboxKey]:
        """Outbox rows whose messages are confirmed; they may be deleted."""
        return list(self._sent)

    def forget(self, keys: Sequence[OutboxKey]) -> None:
        """These rows are deleted.

        Args:
            keys: From `sent`.
        """
        gone = set(keys)
        self._sent = [key for key in self._sent if key not in gone]

    async def settle(self, written: Sequence[Finished]) -> None:
        """Ack and answer what is on record now.

        Args:
            written: Runs whose rows were committed.
        """
        ended = [one for one in written if one.state is not State.RETRYING]
        for one in written:
            self._count(one)
            if one.state is State.RETRYING:
                self._try_again(one)
        if not ended:
            return
        await self._intake.ack([one.claimed.admitted.delivery for one in ended])
        if self._kill.armed("after_ack"):
            await asyncio.sleep(0.05)  # lets the acks leave the socket, so that the kill lands behind them
            self._kill.reach("after_ack", len(ended), in_flight=self._intake.unacked())
        self._spawn(self._answer(ended))

    async def _answer(self, ended: Sequence[Finished]) -> None:
        outgoing = [
            (OutboxKey(row.token, row.part), message)
            for one in ended
            for row in outbox_rows(one, one.claimed.token)
            for message in outbox_messages(row, user=self._user)
        ]
        failures = await self._publisher.publish_all([message for _, message in outgoing])
        failed = {key for (key, _), failure in zip(outgoing, failures, strict=True) if failure is not None}
        confirmed = dict.fromkeys(key for key, _ in outgoing if key not in failed)
        self._sent.extend(confirmed)
        self._kill.reach("after_reply", len(confirmed), in_flight=self._intake.unacked())

    def _try_again(self, one: Finished) -> None:
        admitted = one.claimed.admitted
        at = one.retry_at or datetime.now(UTC)
        facts = {
            "command_id": str(admitted.envelope.id),
            "attempt": one.claimed.attempt,
            "error": one.error.code.value if one.error else None,
            "retry_at": at.isoformat(),
        }
        if one.deferred:
            self._log.debug("command_deferred", **facts)
        else:
            self._log.warning("command_retried", **facts)
        self.wait(admitted, at, attempt=one.claimed.attempt + (not one.deferred))

    def wait(self, admitted: Admitted, until: datetime, *, attempt: int) -> None:
        """Let a command come again later: a short wait stays here, a longer one goes to the broker.

        Args:
            admitted: The command; its delivery is not acked yet.
            until: When it is due.
            attempt: The run that comes next, for its header.
        """
        seconds = (until - datetime.now(UTC)).total_seconds()
        if seconds <= LOCAL_WAIT_SECONDS:
            self._put_back_in(admitted.delivery, max(seconds, 0.0) + 0.01)
        else:
            self._spawn(self._wait_in_broker(admitted, until, attempt=attempt), delivery=admitted.delivery)

    async def _wait_in_broker(self, admitted: Admitted, until: datetime, *, attempt: int) -> None:
        message = waiting_message(
            admitted.envelope,
            admitted.delivery.body,
            user=self._user,
            work_queue=self._queue,
            until=until,
            attempt=attempt,
        )
        for left in reversed(range(_WAIT_TRIES)):
            try:
                await self._publisher.publish(message)
                break
            except PublishFailed as error:
                if not left:
                    # its row says `retrying` (or somebody runs it): the outbox worker publishes what is overdue
                    self._log.warning("wait_left_to_outbox", command_id=str(admitted.envelope.id), error=str(error))
                else:
                    await asyncio.sleep(1)
        await self._intake.ack([admitted.delivery])

    def settle_unclaimed(self, other: NotClaimed) -> DeadLetter | None:
        """Settle a delivery that is not this worker's to run.

        Args:
            other: With the reason.

        Returns:
            A dead letter for the caller to record and ack; None when everything is arranged here.
        """
        admitted = other.admitted
        if other.verdict is Verdict.ID_REUSED:
            return dead_letter_of(
                admitted,
                reason=ErrorCode.ID_REUSED.value,
                message="this message_id was used before with another body; a new command needs a new id",
                queue=self._queue,
            )
        if other.verdict is Verdict.TERMINAL:
            metrics.DUPLICATES.labels(admitted.envelope.kind.name).inc()
            self._spawn(self._answer_again(other), delivery=admitted.delivery)
        elif other.verdict is Verdict.EARLY and other.retry_at is not None:
            self.wait(admitted, other.retry_at, attempt=admitted.envelope.attempt)
        else:
            self._wait_for_holder(admitted)
        return None

    async def _answer_again(self, other: NotClaimed) -> None:
        """Send the stored reply to a duplicate, byte for byte the same; its event went out once and is not repeated."""
        envelope = other.admitted.envelope
        if envelope.reply_to is not None:
            body = (other.result or "").encode()
            reply, _ = result_messages(envelope, status=other.state or "", body=body, user=self._user)
            try:
                await self._publisher.publish(reply)
            except (Unroutable, Refused) as error:
                # the first reply is in the outbox worker's hands; a duplicate's is not worth a queue that is not there
                self._log.warning("duplicate_reply_dropped", command_id=str(envelope.id), error=str(error))
            except PublishFailed:
                self._put_back_in(other.admitted.delivery, 1.0)
                return
        await self._intake.ack([other.admitted.delivery])

    def _wait_for_holder(self, admitted: Admitted) -> None:
        """Another worker runs it, and lives: look again a few times, then wait in the broker."""
        now = asyncio.get_running_loop().time()
        delivery = admitted.delivery
        if delivery.held_since is None:
            delivery.held_since = now
        if now - delivery.held_since < LOCAL_WAIT_SECONDS:
            self._put_back_in(delivery, _HELD_POLL_SECONDS)
        else:
            until = datetime.now(UTC) + _HELD_WAIT
            waiting_there = self._wait_in_broker(admitted, until, attempt=admitted.envelope.attempt)
            self._spawn(waiting_there, delivery=delivery)

    def discard(self, fenced: Finished) -> None:
        """Somebody took this command over while it ran here: nothing was written; its delivery is looked at again.

        Args:
            fenced: The run whose token is no longer the newest.
        """
        metrics.FENCED.labels(fenced.claimed.admitted.envelope.kind.name).inc()
        self._put_back_in(fenced.claimed.admitted.delivery, _HELD_POLL_SECONDS)

    def count_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """These were recorded.

        Args:
            letters: With their reasons.
        """
        for letter in letters:
            metrics.DEAD_LETTERS.labels(letter.reason).inc()
            self._log.warning(
                "command_refused", reason=letter.reason, publisher=letter.publisher, message_id=letter.message_id
            )

    async def answer_refused(self, letters: Sequence[tuple[Delivery, DeadLetter]]) -> None:
        """Ack messages that are recorded as dead letters; those that get an answer, after it.

        Args:
            letters: The messages, and what was recorded of them.
        """
        await self._intake.ack([delivery for delivery, letter in letters if letter.refusal is None])
        for delivery, letter in letters:
            if letter.refusal is not None:
                self._spawn(self._answer_refusal(delivery, letter.refusal), delivery=delivery)

    async def _answer_refusal(self, delivery: Delivery, refusal: Refusal) -> None:
        message = refusal_message(refusal, user=self._user)
        delay_seconds = 1.0
        while True:
            try:
                await self._publisher.publish(message)
                break
            except (Unroutable, Refused, ValueError) as error:
                # its publisher's queue is full or gone, and there is no row from which it could be sent later
                self._log.warning("refusal_dropped", message_id=refusal.message_id, error=str(error))
                break
            except PublishFailed:
                await asyncio.sleep(delay_seconds)
                delay_seconds = min(2 * delay_seconds, 10.0)
        await self._intake.ack([delivery])

    def _count(self, one: Finished) -> None:
        kind = one.claimed.admitted.envelope.kind.name
        if one.state is State.RETRYING:
            (metrics.DEFERRALS if one.deferred else metrics.RETRIES).labels(kind).inc()
            return
        metrics.COMMANDS.labels(kind, one.state.value).inc()
        metrics.COMMAND_DURATION.labels(kind).observe(one.duration_seconds)
        if one.dead_letter and one.error is not None:
            metrics.DEAD_LETTERS.labels(one.error.code.value).inc()

    def put_off(self, delivery: Delivery, seconds: float) -> None:
        """Let a delivery come again that nothing has become of.

        Args:
            delivery: Neither settled nor in flight.
            seconds: From now.
        """
        self._put_back_in(delivery, seconds)

    def _put_back_in(self, delivery: Delivery, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, partial(self._intake.put_back, delivery))

    def _spawn(self, work: Awaitable[None], *, delivery: Delivery | None = None) -> None:
        """Host a task; should it fail, the delivery that it is about (if it is not settled yet) comes again."""
        if self._group is None:
            raise RuntimeError("settling is not running")
        self._busy += 1
        self._group.create_task(self._contained(work, delivery))

    async def _contained(self, work: Awaitable[None], delivery: Delivery | None) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  # one reply's fault must not end what serves all the others
            self._note(error, delivery)
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            self._note(error, delivery)
        finally:
            self._busy -= 1

    def _note(self, error: BaseException, delivery: Delivery | None) -> None:
        tell_fault("settling", error)
        if delivery is not None:
            self._put_back_in(delivery, _AGAIN_SECONDS)
