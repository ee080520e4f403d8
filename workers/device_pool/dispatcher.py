"""Finds a phone for each command that comes to `ish.android`, and publishes it again to that phone's queue.

      ish.android --+-- a phone is idle (or named) --> android.execute.<serial>, confirmed --> ack
                    +-- all are busy --> waits here, bounded by the prefetch; then in the broker
                    `-- none will do, or it is no command --> claimed and ended, or put off, by the consume path

The command stays what it is: identity, publisher, deadline, reply address. Should this process die between the confirm
and the ack, it is published twice, and its claim lets one of them run.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from yarl import URL

from contracts.amqp.messages import command_message
from contracts.amqp.publisher import Publisher, PublishFailed
from contracts.android.command import AndroidExecute
from contracts.commands import KIND_ANDROID
from contracts.errors import Deferred
from contracts.logs import get_logger
from contracts.restarting import tell_fault
from contracts.settings import Settings
from contracts.topology import ANDROID, device_key
from workers.android.adb.server import AdbFailure
from workers.consume.admission import admit
from workers.device_pool.queues import PhonesIntake
from workers.device_pool.selection import Candidate, Refuse, To, choose
from workers.stages import Admitted, Delivery
from workers.store.publishers import Kinds

_LOOK_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 30.0
"""After this a command waits in the broker, where its row says so."""
_PUBLISH_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class _Waiting:
    admitted: Admitted
    payload: AndroidExecute
    since: float
    not_before: float


class Dispatcher:
    """Serves `ish.android`.

    Args:
        settings: Limits, and whose user this is.
        intake: Where commands come from.
        publisher: Where they go.
        candidates: Every phone, as it is now.
        looked_at: `loop.time()` when the record of phones was read last.
        failure: Why an adb server does not answer.
        sent: Told the serial of a phone that got a command.
        changed: Set when a phone may have become idle.
        publishers: Which kinds outside publishers may send.
    """

    def __init__(
        self,
        settings: Settings,
        intake: PhonesIntake,
        publisher: Publisher,
        *,
        candidates: Callable[[], Sequence[Candidate]],
        looked_at: Callable[[], float],
        failure: Callable[[], AdbFailure | None],
        sent: Callable[[str], None],
        changed: asyncio.Event,
        publishers: Kinds,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._publisher = publisher
        self._candidates = candidates
        self._looked_at = looked_at
        self._failure = failure
        self._sent = sent
        self._changed = changed
        self._publishers = publishers
        self._user = URL(settings.amqp_url).user or ""
        self._deadline = timedelta(seconds=settings.command_deadline_seconds)
        self._waiting: list[_Waiting] = []
        self._publishing = 0
        self._stopping = False
        self._log = get_logger(queue=ANDROID)

    @property
    def idle(self) -> bool:
        """Whether no command is on its way to a phone."""
        return not self._publishing

    def stop(self) -> None:
        """Take nothing more; what waits goes back to the broker with its channel."""
        self._stopping = True
        self._waiting.clear()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take())
            while True:
                self._changed.clear()
                if not self._stopping:
                    self._assign(group)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS if self._waiting else None):
                        await self._changed.wait()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for delivery in await self._intake.take_unassigned(self._settings.batch_size):
                try:
                    admitted = self._admit(delivery)
                except Exception as error:  # noqa: BLE001  # the consume path meets it again, and refuses the message
                    tell_fault("dispatcher", error)
                    admitted = None
                if admitted is None:
                    self._intake.hand_over(delivery)
                elif isinstance(admitted.payload, AndroidExecute):
                    self._waiting.append(_Waiting(admitted, admitted.payload, loop.time(), 0.0))
            self._changed.set()

    def _admit(self, delivery: Delivery) -> Admitted | None:
        """A command that a phone is to be found for; None for whatever the consume path deals with."""
        now = datetime.now(UTC)
        one = admit(
            delivery,
            queue=ANDROID,
            kinds={KIND_ANDROID},
            default_deadline=self._deadline,
            body_limit_bytes=self._settings.body_limit_bytes,
            publishers=self._publishers,
            now=now,
        )
        if not isinstance(one, Admitted) or one.fault is not None or _is_over(one, now):
            return None
        early = one.envelope.not_before is not None and one.envelope.not_before > now
        return None if early else one

    def _assign(self, group: asyncio.TaskGroup) -> None:
        now, moment = asyncio.get_running_loop().time(), datetime.now(UTC)
        due = [one for one in self._waiting if one.not_before <= now]
        candidates, failure = list(self._candidates()) if due else [], self._failure()
        for one in due:
            try:
                decision = choose(one.payload, candidates, failure=failure)
            except Exception as error:  # noqa: BLE001  # those that wait beside it have their turn
                tell_fault("dispatcher", error, command_id=str(one.admitted.envelope.id))
                self._waiting.remove(one)
                self._intake.hand_over(one.admitted.delivery)
                continue
            if isinstance(decision, To):
                candidates = [replace(c, idle=False) if c.serial == decision.serial else c for c in candidates]
                self._waiting.remove(one)
                self._sent(decision.serial)
                self._publishing += 1
                group.create_task(self._publish(one, decision.serial))
            elif (
                (isinstance(decision, Refuse) and self._is_certain(decision, since=one.since))
                or now - one.since > _LONGEST_WAIT_SECONDS
                or _is_over(one.admitted, moment)
            ):
                self._waiting.remove(one)
                self._intake.hand_over(one.admitted.delivery)

    def _is_certain(self, decision: Refuse, *, since: float) -> bool:
        """A name or tag may have been given just before the command was: the record must have been read after it."""
        return isinstance(decision.error, Deferred) or self._looked_at() > since

    async def _publish(self, one: _Waiting, serial: str) -> None:
        body, key = one.admitted.delivery.body, device_key(serial)
        try:
            await self._publisher.publish(command_message(one.admitted.envelope, body, user=self._user, key=key))
        except Exception as error:  # noqa: BLE001  # not confirmed, whatever the reason: it waits for another try
            self._log.warning(
                "message_postponed", message_id=str(one.admitted.envelope.id), serial=serial, error=str(error)
            )
            if not isinstance(error, PublishFailed):
                tell_fault("dispatcher", error)
            one.not_before = asyncio.get_running_loop().time() + _PUBLISH_AGAIN_SECONDS
            if not self._stopping:
                self._waiting.append(one)
        else:
            await self._intake.ack([one.admitted.delivery])
        finally:
            self._publishing -= 1


def _is_over(admitted: Admitted, now: datetime) -> bool:
    return admitted.envelope.deadline_at <= now
