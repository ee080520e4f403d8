"""What follows a run on a phone: like any other's, but that a phone's own command waits in place until it is over."""

from datetime import UTC, datetime
from typing import Any

from typing_extensions import override

from contracts.android.command import AndroidExecute
from workers.consume.settlement import Settling
from workers.device_pool.queues import PhonesIntake
from workers.stages import Admitted, Delivery

_LOOK_SECONDS = 2.0
"""A command that waits in place is looked at so often: it may have been cancelled meanwhile."""
_HELD_LOOK_SECONDS = 0.3


class PhoneSettling(Settling):
    """Acks, replies and waits of the Android pool.

    Args:
        intake: Where deliveries came from.
        given: As `Settling` wants it.
    """

    def __init__(self, intake: PhonesIntake, **given: Any) -> None:
        super().__init__(intake=intake, **given)
        self._queues = intake

    @override
    def wait(self, admitted: Admitted, until: datetime, *, attempt: int) -> None:
        """A command for this phone blocks it; one for any phone goes to look for another; others wait as usual."""
        if not self._is_here(admitted.delivery):
            return
        if self._blocks(admitted):
            seconds = (until - datetime.now(UTC)).total_seconds()
            self._put_back_in(admitted.delivery, min(max(seconds, 0.0) + 0.01, _LOOK_SECONDS))
        elif self._queues.is_unassigned(admitted.delivery):
            super().wait(admitted, until, attempt=attempt)
        else:
            self._spawn(self._wait_in_broker(admitted, until, attempt=attempt), delivery=admitted.delivery)

    @override
    def _wait_for_holder(self, admitted: Admitted) -> None:
        if not self._is_here(admitted.delivery):
            return
        if self._blocks(admitted):
            self._put_back_in(admitted.delivery, _HELD_LOOK_SECONDS)
        else:
            super()._wait_for_holder(admitted)

    @override
    def _put_back_in(self, delivery: Delivery, seconds: float) -> None:
        queue = self._queues.carrier(delivery)
        if queue is not None:
            queue.park(delivery, seconds)
        elif self._queues.is_unassigned(delivery):
            super()._put_back_in(delivery, seconds)

    def _is_here(self, delivery: Delivery) -> bool:
        """Whether its queue is still consumed here; if not, the broker gives it to the phone's next holder."""
        return self._queues.carrier(delivery) is not None or self._queues.is_unassigned(delivery)

    def _blocks(self, admitted: Admitted) -> bool:
        queue, payload = self._queues.carrier(admitted.delivery), admitted.payload
        return queue is not None and isinstance(payload, AndroidExecute) and queue.serves(payload.device)
