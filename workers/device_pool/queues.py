"""What the Android pool consumes, as one intake: `ish.android`, and the queue of each phone that this worker holds.

One consume path serves them all, so that claims and commits of different phones share statements. Of each phone's queue
one message at a time is in hand; it stays there, unacked, until its command has ended: that keeps the phone's order.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from typing_extensions import override

from contracts.envelope import read_envelope
from contracts.topology import ANDROID, device_queue
from workers.amqp.connection import Connection
from workers.amqp.subscription import Intake
from workers.stages import Delivery, Key


class PhoneQueue(Intake):
    """The consumer of one phone's queue.

    Args:
        url: As in `Intake`.
        serial: The phone.
        connection: As in `Intake`.
        arrived: As in `Intake`.
        alias: What its adb server calls it now; None while no server has it.
    """

    def __init__(
        self,
        url: str,
        serial: str,
        *,
        connection: Connection,
        arrived: asyncio.Event,
        alias: Callable[[], str | None],
    ) -> None:
        super().__init__(
            url,
            queue=device_queue(serial),
            prefetch=1,
            in_order=False,
            connection=connection,
            arrived=arrived,
            one_of_many=True,
        )
        self.serial = serial
        self._alias = alias
        self._in_hand: Key | None = None
        self.taken_at = float("-inf")
        """`loop.time()` at which that was."""
        self._parked: Delivery | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing of this phone is waiting or running."""
        return self.backlog == 0 and not self.unacked()

    @property
    def is_running(self) -> bool:
        """Whether a command was taken from here and is neither settled nor put off, nor back with the broker."""
        return self.alive and bool(self.unacked()) and self._parked is None and not self.waiting()

    @property
    def depth(self) -> int | None:
        """Commands that wait for this phone or run on it; None when that is not known."""
        return None if self.backlog is None else self.backlog + self.unacked()

    def carries(self, key: Key) -> bool:
        """Whether this command was taken from here and is not settled.

        Args:
            key: Its identity.
        """
        return self._in_hand == key and bool(self.unacked())

    def serves(self, name: str | None) -> bool:
        """Whether a command that names a phone names this one.

        Args:
            name: As the command gives it; None names any phone, and so none.
        """
        return name is not None and name in (self.serial, self._alias())

    @override
    def take_now(self, most: int) -> list[Delivery]:
        taken = super().take_now(most)
        if taken:
            self._in_hand, self.taken_at = _key(taken[-1]), taken[-1].received_at
        return taken

    @override
    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await super().ack(deliveries)
        if not self.unacked():
            self._in_hand = None

    def park(self, delivery: Delivery, seconds: float) -> None:
        """Put the command in hand off; the phone waits with it.

        Args:
            delivery: Its delivery.
            seconds: From now.
        """
        if delivery.generation == self.generation:
            self._parked = delivery
            asyncio.get_running_loop().call_later(seconds, partial(self._unpark, delivery))

    def _unpark(self, delivery: Delivery) -> None:
        if self._parked is delivery:
            self._parked = None
            self.put_back(delivery)

    @override
    async def release(self) -> None:
        self._parked = None
        await super().release()


class PhonesIntake(Intake):
    """Every queue of the Android pool at this worker.

    `take` gives what is to be run: commands of phones, and what `hand_over` brings. What comes to `ish.android` is taken
    by `take_unassigned`.

    Args:
        url: AMQP URL of the worker's user.
        prefetch: Of `ish.android`.
        changed: Set when a command has ended, so that its phone may be idle.
    """

    def __init__(self, url: str, *, prefetch: int, changed: asyncio.Event) -> None:
        self.connection = Connection(url, name="ish android consumer")
        super().__init__(url, queue=ANDROID, prefetch=prefetch, in_order=False, connection=self.connection)
        self._url = url
        self._changed = changed
        self._queues: dict[str, PhoneQueue] = {}
        self._handed_over: list[Delivery] = []
        self._to_run = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    @override
    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for queue in self._queues.values():
                    group.create_task(queue.run())
                await super().run()
                await asyncio.Event().wait()
        finally:
            self._group = None
            await self.connection.close()

    def attach(self, serial: str, *, alias: Callable[[], str | None]) -> PhoneQueue:
        """Consume a phone's queue.

        Args:
            serial: The phone.
            alias: What its adb server calls it now; None while no server has it.
        """
        queue = self._queues[serial] = PhoneQueue(
            self._url, serial, connection=self.connection, arrived=self._to_run, alias=alias
        )
        if self._group is not None:
            self._group.create_task(queue.run())
        return queue

    async def detach(self, queue: PhoneQueue) -> None:
        """Leave a phone's queue: what is in hand goes back to its place there.

        Args:
            queue: From `attach`.
        """
        if self._queues.get(queue.serial) is queue:
            del self._queues[queue.serial]
        await queue.release()

    def queue_of(self, serial: str) -> PhoneQueue | None:
        """The queue of a phone that is consumed here.

        Args:
            serial: The phone.
        """
        return self._queues.get(serial)

    def phone_of(self, publisher: str, command_id: UUID) -> str | None:
        """The phone in whose queue a command came; None for one that came for any phone.

        Args:
            publisher: The command's publisher.
            command_id: The command.
        """
        key = (publisher, command_id)
        return next((queue.serial for queue in self._queues.values() if queue.carries(key)), None)

    def carrier(self, delivery: Delivery) -> "PhoneQueue | None":
        """The phone's queue that a delivery came from, while it is consumed here.

        Args:
            delivery: As taken.
        """
        generation = delivery.generation
        return next((queue for queue in self._queues.values() if queue.generation == generation), None)

    def is_unassigned(self, delivery: Delivery) -> bool:
        """Whether a delivery came from `ish.android`.

        Args:
            delivery: As taken.
        """
        return delivery.generation == self.generation

    async def take_unassigned(self, most: int) -> list[Delivery]:
        """Wait for commands for any phone.

        Args:
            most: At the most so many.
        """
        return await super().take(most)

    def hand_over(self, delivery: Delivery) -> None:
        """Have a command of `ish.android` claimed and ended here, since no phone can be found for it.

        Args:
            delivery: From `take_unassigned`.
        """
        delivery.redelivered = False  # it waited through crashes that it had no part in
        self._handed_over.append(delivery)
        self._to_run.set()

    @override
    async def take(self, most: int) -> list[Delivery]:
        while True:
            self._to_run.clear()
            taken, self._handed_over = self._handed_over[:most], self._handed_over[most:]
            for queue in self._queues.values():
                taken += queue.take_now(most - len(taken))
            if taken:
                return taken
            await self._to_run.wait()

    @override
    def put_back(self, delivery: Delivery) -> None:
        queue = self.carrier(delivery)
        if queue is not None:
            queue.put_back(delivery)
        elif self.is_unassigned(delivery):
            super().put_back(delivery)

    @override
    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await super().ack([one for one in deliveries if self.is_unassigned(one)])
        for queue in list(self._queues.values()):
            await queue.ack([one for one in deliveries if one.generation == queue.generation])
        self._changed.set()

    @override
    async def stop_consuming(self) -> None:
        """Cancel every consumer; what no phone was found for goes back to `ish.android`."""
        await super().stop_consuming()
        self._handed_over.clear()
        self.take_now(self.unacked() + 1)
        for queue in list(self._queues.values()):
            await queue.stop_consuming()

    @override
    def waiting(self) -> int:
        return len(self._handed_over) + sum(queue.waiting() for queue in self._queues.values())

    @override
    def unacked(self) -> int:
        return super().unacked() + sum(queue.unacked() for queue in self._queues.values())


def _key(delivery: Delivery) -> Key | None:
    with suppress(Exception):  # what cannot be read is no command
        envelope = read_envelope(delivery.properties, default_deadline=timedelta(hours=1), now=datetime.now(UTC))
        return envelope.publisher, envelope.id
    return None
