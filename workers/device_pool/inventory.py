"""What this worker knows of every phone at the moment: its own holds, what its watcher sees, and what is on record."""

import asyncio
import zlib
from collections import Counter
from collections.abc import Sequence

from workers.android.adb.states import FENCE_UNSUPPORTED, OFFLINE, READY
from workers.android.monitor.devices import DeviceFacts
from workers.android.monitor.watch import Watcher
from workers.device_pool.leased_phone import Hold
from workers.device_pool.leases import Picture, Recorded
from workers.device_pool.queues import PhonesIntake
from workers.device_pool.selection import Candidate
from workers.store.heartbeat import Registration

_SENT_SECONDS = 2.0
"""For so long a phone that was sent a command is not idle, unless the command is seen to have come and gone."""


class Roster:
    """Every phone, as its parts know it.

    Args:
        registration: This worker's incarnation.
        watcher: How the phones are.
        intake: Where the queues of those held here are consumed.
    """

    def __init__(self, registration: Registration, *, watcher: Watcher, intake: PhonesIntake) -> None:
        self._registration = registration
        self._watcher = watcher
        self._intake = intake
        self._sent: dict[str, float] = {}
        self.holds: dict[str, Hold] = {}
        """Phones held here; the keeper's to change."""
        self.picture = Picture()
        """What was on record a moment ago; the keeper's to change."""
        self.looked_at = float("-inf")
        """`loop.time()` when that was; the keeper's to change."""
        self.looked = asyncio.Event()
        """Set once the record has been read."""

    def is_mine(self, serial: str) -> bool:
        """Whether this worker is to look after a phone: it holds it, or nobody does and it is this one's turn.

        Args:
            serial: The phone.
        """
        if serial in self.holds:
            return True
        workers = self.picture.workers
        if self.picture.is_held(serial) or not workers:
            return False
        return workers[zlib.crc32(serial.encode()) % len(workers)] == self._registration.incarnation

    def is_idle(self, serial: str) -> bool:
        """Whether nothing waits for a phone held here or runs on it, nor is on its way to it from here.

        Args:
            serial: The phone.
        """
        queue = self._intake.queue_of(serial)
        return queue is not None and queue.is_idle and not self._was_sent(serial, came_at=queue.taken_at)

    def depth_of(self, serial: str) -> int | None:
        """Commands that wait for a phone held here or run on it; None when its queue is not consumed here.

        Args:
            serial: The phone.
        """
        queue = self._intake.queue_of(serial)
        return queue.depth if queue is not None else None

    def note_of(self, serial: str) -> str | None:
        """What a person should know of a phone although it is ready.

        Args:
            serial: The phone.
        """
        hold = self.holds.get(serial)
        return FENCE_UNSUPPORTED if hold is not None and hold.fence_unsupported else None

    def shared_addresses(self) -> set[str]:
        """What the adb servers call phones, where several phones are called so or another one has it as its name."""
        known = {one.facts.serial: one.facts for one in self.picture.phones.values()}
        known |= {facts.serial: facts for facts in self._watcher.phones()}
        times = Counter(facts.transport_serial for facts in known.values())
        return {
            address
            for address, count in times.items()
            if count > 1 or (address in known and known[address].transport_serial != address)
        }

    def note_sent(self, serial: str) -> None:
        """A command is being published to a phone's queue.

        Args:
            serial: The phone.
        """
        self._sent[serial] = asyncio.get_running_loop().time()

    def candidates(self) -> Sequence[Candidate]:
        """Every phone, for choosing one."""
        seen = {facts.serial: facts for facts in self._watcher.phones()}
        recorded = self.picture.phones
        found = [self._candidate(facts, recorded.get(serial)) for serial, facts in seen.items()]
        return found + [self._candidate(None, one) for serial, one in recorded.items() if serial not in seen]

    def _candidate(self, seen: DeviceFacts | None, recorded: Recorded | None) -> Candidate:
        facts = seen or (recorded.facts if recorded is not None else None)
        if facts is None:
            raise TypeError("a phone is seen or recorded")
        hold = self.holds.get(facts.serial)
        if hold is not None:
            ready = self._watcher.trusts(facts.serial) and hold.is_sure and not hold.leaving
            is_open = self.depth_of(facts.serial) is not None
            idle = ready and is_open and self.is_idle(facts.serial)
        elif recorded is not None and recorded.fresh and self.picture.is_held(facts.serial):
            facts = recorded.facts  # its holder knows better
            ready, is_open = facts.state == READY, recorded.queue_depth is not None
            idle = ready and recorded.queue_depth == 0 and not self._was_sent(facts.serial)
        else:
            ready = is_open = idle = False
        return Candidate(
            serial=facts.serial,
            transport=facts.transport_serial,
            state=facts.state if seen is not None or (recorded is not None and recorded.fresh) else OFFLINE,
            hint=facts.hint,
            reported=facts.reported_serial,
            tags=recorded.tags if recorded is not None else frozenset(),
            here=hold is not None,
            open=is_open,
            idle=idle,
        )

    def _was_sent(self, serial: str, *, came_at: float = float("-inf")) -> bool:
        """Whether a command published from here may be on its way to the phone, or in its queue."""
        sent_at = self._sent.get(serial, float("-inf"))
        return came_at <= sent_at and asyncio.get_running_loop().time() - sent_at < _SENT_SECONDS
