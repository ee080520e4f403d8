"""Puts the Android pool together: watcher, leases, queues, dispatch and the one consume path."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import asyncpg
from yarl import URL

from contracts.android.command import AndroidExecute
from contracts.database import AWAY
from contracts.errors import CommandError, Deferred, ErrorCode
from contracts.logs import get_logger
from contracts.restarting import restarting
from contracts.service_errors import postgres_in_words
from contracts.topology import ANDROID
from workers.android.adb.states import LOOK_AGAIN_SECONDS
from workers.android.handler import RunOnPhone
from workers.android.monitor.devices import parse_servers
from workers.android.monitor.watch import Watcher
from workers.consume.consumer import Pool
from workers.consume.lane import Lane, Shared
from workers.device_pool.dispatcher import Dispatcher
from workers.device_pool.inventory import Roster
from workers.device_pool.lease_manager import Keeper
from workers.device_pool.queues import PhonesIntake
from workers.device_pool.selection import Refuse, busy, choose
from workers.device_pool.settlement import PhoneSettling
from workers.handler import Command, Outcome
from workers.store.devices import Recorder, Seen
from workers.task_cancellation import end

_RECORD_SECONDS = 0.5
_CLOSE_SECONDS = 10.0
_STOP_LOOK_SECONDS = 0.05


class PhonePool:
    """The Android worker's work.

    Args:
        pool: `ish.android`; its prefetch bounds the commands that wait here for a phone.
        run_on: Runs one command on one phone.
        shared: What it has in common with every worker.
    """

    def __init__(self, pool: Pool, run_on: RunOnPhone, shared: Shared) -> None:
        settings, changed = shared.settings, asyncio.Event()
        self._watchdog_seconds = settings.watchdog_seconds
        self._run_on = run_on
        self._registration = shared.registration
        self.intake = PhonesIntake(settings.amqp_url, prefetch=pool.prefetch, changed=changed)
        self._watcher = Watcher(parse_servers(settings.adb_servers), responsible=self._is_mine)
        self._roster = Roster(shared.registration, watcher=self._watcher, intake=self.intake)
        self._keeper = Keeper(
            settings,
            shared.database,
            shared.registration,
            roster=self._roster,
            watcher=self._watcher,
            intake=self.intake,
            changed=changed,
        )
        self._dispatcher = Dispatcher(
            settings,
            self.intake,
            shared.publisher,
            candidates=self._roster.candidates,
            looked_at=lambda: self._roster.looked_at,
            failure=lambda: self._watcher.failure,
            sent=self._roster.note_sent,
            changed=changed,
            publishers=shared.kinds,
        )
        settling = PhoneSettling(
            self.intake,
            queue=ANDROID,
            user=URL(settings.amqp_url).user or "",
            publisher=shared.publisher,
            kill_points=shared.kill_points,
        )
        self._lane = Lane(pool, self._handle, shared, intake=self.intake, settling=settling)
        self._recorder = Recorder(shared.database)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            keep = partial(restarting, give_up_seconds=self._watchdog_seconds)
            tasks = [
                group.create_task(keep("watcher", self._watcher.run)),
                group.create_task(self._lane.run()),
                group.create_task(keep("keeper", self._keeper.run)),
                group.create_task(keep("dispatcher", self._dispatch)),
                group.create_task(keep("devices", self._record)),
            ]
            try:
                await asyncio.Event().wait()
            finally:
                await end(reversed(tasks))

    async def drain(self, grace_seconds: float) -> None:
        """Take nothing new, finish what is running, and give the phones to the other workers.

        Args:
            grace_seconds: The longest wait.
        """
        self._keeper.stop()
        self._dispatcher.stop()
        try:
            async with asyncio.timeout(grace_seconds):
                while not self._dispatcher.idle:  # noqa: ASYNC110  # a few confirms, once in a worker's life
                    await asyncio.sleep(_STOP_LOOK_SECONDS)
        except TimeoutError:
            pass  # published twice at the worst: the claim lets one run
        await self._lane.drain(grace_seconds)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._keeper.close()
        except Exception as error:  # noqa: BLE001  # the leases end with the heartbeat
            get_logger().warning("postgres_unreachable", error=postgres_in_words(error), doing="release of phones")

    async def _handle(self, command: Command[AndroidExecute]) -> Outcome:
        payload = command.payload
        serial = self.intake.phone_of(command.publisher, command.id)
        queue = self.intake.queue_of(serial) if serial is not None else None
        hold = self._roster.holds.get(serial) if serial is not None else None
        if hold is None or queue is None:
            raise self._refusal(payload)
        if payload.device is not None and not queue.serves(payload.device):
            sentence = f"{payload.device} is no name of {serial} any more"
            raise Deferred(ErrorCode.DEVICE_NOT_FOUND, sentence, retry_after_seconds=LOOK_AGAIN_SECONDS)
        return await self._run_on(hold, command)

    def _refusal(self, payload: AndroidExecute) -> CommandError:
        """Why a command that came to `ish.android` has no phone."""
        decision = choose(payload, self._roster.candidates(), failure=self._watcher.failure)
        return decision.error if isinstance(decision, Refuse) else busy()

    async def _dispatch(self) -> None:
        """Decide about the first command only when it is known what there is."""
        await self._watcher.looked.wait()
        await self._roster.looked.wait()
        await self._dispatcher.run()

    async def _record(self) -> None:
        log, told = get_logger(job="phones"), False
        while True:
            if self._registration.sure_seconds > 0:
                try:
                    await self._recorder.record(self._seen())
                    told = False
                except (asyncpg.PostgresError, *AWAY) as error:
                    if not told:
                        log.warning("postgres_unreachable", error=postgres_in_words(error), doing="devices")
                    told = True
            await asyncio.sleep(_RECORD_SECONDS)

    def _seen(self) -> Sequence[Seen]:
        """The phones that this worker writes down."""
        roster = self._roster
        return [
            Seen(replace(facts, hint=facts.hint or roster.note_of(facts.serial)), roster.depth_of(facts.serial))
            for facts in self._watcher.phones()
            if roster.is_mine(facts.serial)
        ]

    def _is_mine(self, serial: str) -> bool:
        return self._roster.is_mine(serial)
