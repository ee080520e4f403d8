"""Holds this worker's share of the phones: takes, keeps, gives away and loses leases, and consumes what it holds.

       take --> fence the phone --> consume its queue --> (share shrinks, or stop) finish --> leave queue --> release
                                          |
                      lease is not sure any more (frozen, Postgres away, taken back): leave the queue at once

Round by round it looks at what is on record (`leases`), decides (`balance`) and acts; the look also serves whoever
chooses a phone. A phone is released only after its queue was left, so that what was in hand is back at its head.
"""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import asyncpg

from contracts.database import AWAY
from contracts.errors import CommandError
from contracts.logs import get_logger
from contracts.restarting import restarting, tell_fault
from contracts.service_errors import postgres_in_words
from contracts.settings import Settings
from workers.android.adb.states import OFFLINE
from workers.android.monitor.watch import Watcher
from workers.device_pool import leases
from workers.device_pool.inventory import Roster
from workers.device_pool.leased_phone import Hold
from workers.device_pool.queues import PhonesIntake
from workers.device_pool.rebalance import Decision, Memory, decide
from workers.store.heartbeat import Registration

_ROUND_SECONDS = 0.5
_LOOK_SECONDS = 0.1
_FIRST_FENCE_SECONDS = 4.0
_SLACK_OF_GONE = 1
"""So that a phone that is switched off for a moment need not change hands."""


class Keeper:
    """The phones of this worker.

    Args:
        settings: Limits.
        database: asyncpg pool.
        registration: This worker's incarnation.
        roster: What is known of them; its holds are kept here.
        watcher: How the phones are.
        intake: Where their queues are consumed.
        changed: To be set when a phone may have become idle.
    """

    def __init__(
        self,
        settings: Settings,
        database: Any,
        registration: Registration,
        *,
        roster: Roster,
        watcher: Watcher,
        intake: PhonesIntake,
        changed: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._database = database
        self._registration = registration
        self._roster = roster
        self._watcher = watcher
        self._intake = intake
        self._locks: dict[str, asyncio.Lock] = {}
        self._memory, self._memory_of_gone = Memory(), Memory()
        self._group: asyncio.TaskGroup | None = None
        self._broker_lost_at: float | None = None
        self._cautious_until = 0.0
        self._stopping = False
        self._log = get_logger(job="phones")
        self._changed = changed

    async def run(self) -> None:
        """Keep this worker's share until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(restarting("leases", self._let_go_when_unsure))
            told = False
            while True:
                try:
                    await self._round()
                    told = False
                except (asyncpg.PostgresError, *AWAY) as error:
                    if not told:
                        self._log.warning(
                            "postgres_unreachable", error=postgres_in_words(error), doing="leases of phones"
                        )
                    told = True
                except Exception as error:  # noqa: BLE001  # what was begun for other phones goes on
                    tell_fault("keeper", error)
                await asyncio.sleep(_ROUND_SECONDS)

    async def close(self) -> None:
        """Leave every queue and give every phone back; what was being done is done.

        Raises:
            asyncpg.PostgresError, OSError, TimeoutError: Postgres is away; the leases end with the heartbeat.
        """
        self._stopping = True
        holds = list(self._roster.holds.values())
        await asyncio.gather(*(self._leave(hold) for hold in holds))
        await self._release(holds)

    def stop(self) -> None:
        """Take no more phones."""
        self._stopping = True

    async def _round(self) -> None:
        began = asyncio.get_running_loop().time()
        self._roster.picture = await leases.read_picture(self._database, lease_seconds=self._settings.lease_seconds)
        self._roster.looked_at = began
        self._watcher.learn(
            recorded.facts for recorded in self._roster.picture.phones.values() if recorded.facts.identified
        )
        self._roster.looked.set()
        self._changed.set()
        await self._let_go_of_lost()
        for hold in list(self._roster.holds.values()):
            if hold.estranged and not hold.leaving:
                self._log.warning("phone_exchanged", serial=hold.serial)
                self._give(hold)
        if self._stopping or not self._may_hold():
            return
        decisions = list(self._decide())
        for serial in chain.from_iterable(one.give for one in decisions):
            self._give(self._roster.holds[serial])
        wanted = [*chain.from_iterable(one.take for one in decisions)]
        if wanted:
            await self._take(wanted)

    def _decide(self) -> Iterable[Decision]:
        """Phones that are gone are shared out by themselves: a worker is not to be left with nothing else."""
        phones = {facts.serial: facts for facts in self._watcher.phones() if facts.identified}
        gone = {serial for serial, facts in phones.items() if facts.state == OFFLINE}
        mine = {serial for serial, hold in self._roster.holds.items() if not hold.leaving}
        held = {serial for serial in self._roster.picture.leases if self._roster.picture.is_held(serial)}
        within_reach = self._watcher.within_reach() & set(phones)
        for memory, group, slack in (
            (self._memory, (set(phones) | mine | held) - gone, 0),
            (self._memory_of_gone, gone, _SLACK_OF_GONE),
        ):
            yield decide(
                memory,
                me=self._registration.incarnation,
                workers=self._roster.picture.workers,
                mine={serial: self._roster.is_idle(serial) for serial in mine & group},
                others=(held - mine) & group,
                within_reach=within_reach & group,
                known=set(phones) & group,
                now=time.monotonic(),
                slack=slack,
            )

    def _may_hold(self) -> bool:
        """Whether this worker is fit to hold phones; when the broker stays away, others may be better off."""
        now = time.monotonic()
        if self._registration.sure_seconds <= 0:
            # after an outage of Postgres everybody looks dead for a moment
            self._cautious_until = now + 2 * self._settings.heartbeat_seconds
            return False
        if self._intake.connection.is_open or not self._roster.holds:
            self._broker_lost_at = None
        elif self._broker_lost_at is None:
            self._broker_lost_at = now
        elif now - self._broker_lost_at > self._settings.lease_seconds:
            for hold in self._roster.holds.values():
                self._give(hold)
        return self._intake.connection.is_open and now >= self._cautious_until

    async def _take(self, serials: Sequence[str]) -> None:
        holder = self._registration.incarnation
        tokens = await leases.take(self._database, serials, holder=holder, lease_seconds=self._settings.lease_seconds)
        for serial, token in tokens.items():
            lock = self._locks.setdefault(serial, asyncio.Lock())
            hold = self._roster.holds[serial] = Hold(serial, token, holder, self._registration, self._watcher, lock)
            self._spawn(hold, self._begin(hold))
        if tokens:
            self._log.info("phones_taken", serials=sorted(tokens))

    async def _begin(self, hold: Hold) -> None:
        """Fence the phone, then consume its queue; a phone that is not ready is fenced by its first command."""
        try:
            async with asyncio.timeout(_FIRST_FENCE_SECONDS), hold.opened():
                pass
        except (CommandError, TimeoutError):
            pass
        if not (hold.left or hold.leaving) and hold.is_sure:
            self._intake.attach(hold.serial, alias=lambda: self._alias(hold.serial))

    def _alias(self, serial: str) -> str | None:
        facts = self._watcher.facts_of(serial)
        if facts is None or facts.transport_serial in self._roster.shared_addresses():
            return None
        return facts.transport_serial

    def _give(self, hold: Hold) -> None:
        if not hold.leaving:
            hold.leaving = True
            self._spawn(hold, self._give_away(hold))

    async def _give_away(self, hold: Hold) -> None:
        queue = self._intake.queue_of(hold.serial)
        if queue is not None:
            await queue.stop_consuming()
        while not hold.left and (hold.lock.locked() or (queue is not None and queue.is_running)):  # noqa: ASYNC110  # acked elsewhere, in batches
            await asyncio.sleep(_LOOK_SECONDS)
        if hold.left:
            return
        await self._leave(hold)
        try:
            await self._release([hold])
        except (asyncpg.PostgresError, *AWAY) as error:
            # still on record as this worker's: the next round finds it, and gives it back
            self._log.warning("postgres_unreachable", error=postgres_in_words(error), doing="release of a phone")

    async def _leave(self, hold: Hold) -> None:
        hold.left = True
        queue = self._intake.queue_of(hold.serial)
        if queue is not None:
            await self._intake.detach(queue)
        if self._roster.holds.get(hold.serial) is hold:
            del self._roster.holds[hold.serial]

    async def _release(self, holds: Sequence[Hold]) -> None:
        by_holder: dict[Any, dict[str, int]] = {}
        for hold in holds:
            by_holder.setdefault(hold.holder, {})[hold.serial] = hold.token
        for holder, tokens in by_holder.items():
            await leases.release(self._database, tokens, holder=holder)
            self._log.info("phones_released", serials=sorted(tokens))

    async def _let_go_when_unsure(self) -> None:
        """Leave the queue of each phone that another worker may have taken, without waiting for the next round."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._let_go_of({serial: hold for serial, hold in self._roster.holds.items() if not hold.is_sure})

    async def _let_go_of_lost(self) -> None:
        found = self._roster.picture.leases
        lost = {
            serial: hold
            for serial, hold in self._roster.holds.items()
            if serial not in found or (found[serial].holder, found[serial].token) != (hold.holder, hold.token)
        }
        await self._let_go_of(lost)
        # rows of this incarnation that it does not know of: a release, or the answer to a take, was lost
        stray = {
            serial: lease.token
            for serial, lease in found.items()
            if lease.holder == self._registration.incarnation and serial not in self._roster.holds
        }
        if stray:
            await leases.release(self._database, stray, holder=self._registration.incarnation)

    async def _let_go_of(self, holds: Mapping[str, Hold]) -> None:
        lost = {serial: hold for serial, hold in holds.items() if not hold.left}
        if lost:
            self._log.warning("phones_lost", serials=sorted(lost))
            await asyncio.gather(*(self._leave(hold) for hold in lost.values()))

    def _spawn(self, hold: Hold, work: Awaitable[None]) -> None:
        if self._group is None:
            raise RuntimeError("the keeper is not running")
        self._group.create_task(self._contained(hold, work))

    async def _contained(self, hold: Hold, work: Awaitable[None]) -> None:
        """Should it fail, this hold is over: the next round gives the lease back, and whoever is due takes the phone."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  # one phone's fault must not end what holds the others
            tell_fault("keeper", error, serial=hold.serial)
            await self._leave(hold)
