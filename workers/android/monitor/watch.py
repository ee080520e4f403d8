"""Watches the phones of adb servers: looks at each server once a second, and at each phone as it needs it.

Only the worker that is responsible for a phone probes and reconnects it (two would cut each other's connections); for
the others its adb server's word is enough, once the phone has said who it is.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from contracts.errors import ErrorCode
from contracts.restarting import restarting, tell_fault
from workers.android.adb.listing import ListedPhone
from workers.android.adb.server import AdbFailure, AdbServer
from workers.android.adb.states import READY
from workers.android.monitor.devices import DeviceFacts, Transport
from workers.android.monitor.identity import Connection, Sighting, hints, names
from workers.android.monitor.phone import Chore, Watched
from workers.android.monitor.twins import are_one

FORGOTTEN_AFTER = timedelta(days=7)
"""A phone that was not seen for so long is none any more."""

_LIST_TIMEOUT_SECONDS = 2.0
_FAILED_LOOKS = 2
"""A server that is slow once has not lost its phones."""


class Watcher:
    """The phones of some adb servers, as this process sees them.

    Args:
        servers: The adb servers.
        responsible: Whether this process is to probe and reconnect a phone, by its serial.
        poll_seconds: From one look at a server to the next; no phone or other server that hangs makes it longer.
    """

    def __init__(
        self,
        servers: Sequence[AdbServer],
        *,
        responsible: Callable[[str], bool] = lambda _: True,
        poll_seconds: float = 1.0,
    ) -> None:
        self._servers = tuple(servers)
        self._responsible = responsible
        self._poll_seconds = poll_seconds
        self._watched: dict[tuple[AdbServer, str], Watched] = {}
        self._known: dict[tuple[str, str], DeviceFacts] = {}
        """Phones on record, by server and address."""
        self._proofs: dict[frozenset[Connection], bool] = {}
        """Whether two connections lead to one phone, as far as that was found out."""
        self._asked: set[frozenset[Connection]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._best: dict[str, Watched] | None = None
        self._tended: set[int] = set()
        self._failures: dict[AdbServer, tuple[AdbFailure, int]] = {}
        self._looked: set[AdbServer] = set()
        self.looked = asyncio.Event()
        """Set once every server has been asked for its phones, and every ready phone who it is."""
        self.changed = asyncio.Event()
        """Set with every change; whoever waits for it clears it."""

    async def run(self) -> None:
        """Watch until cancelled."""
        if not self._servers:
            self.looked.set()
        async with asyncio.TaskGroup() as tasks:
            self._group = tasks
            for server in self._servers:
                tasks.create_task(restarting("adb server", partial(self._follow, server, tasks)))

    @property
    def failure(self) -> AdbFailure | None:
        """Why an adb server does not answer; None when all do."""
        return next((failure for failure, _ in self._failures.values()), None)

    def phones(self) -> list[DeviceFacts]:
        """Every phone known, those that are gone as `offline`; one entry per phone, sorted by serial."""
        best = self._by_serial()
        return [best[serial].facts for serial in sorted(best)]

    def facts_of(self, serial: str) -> DeviceFacts | None:
        """One phone, if it is known.

        Args:
            serial: What it is called.
        """
        phone = self._by_serial().get(serial)
        return phone.facts if phone is not None else None

    def transport_of(self, serial: str) -> Transport | None:
        """The way to a phone; None unless it is ready.

        Args:
            serial: What it is called.
        """
        phone = self._by_serial().get(serial)
        if phone is None or not phone.is_ready:
            return None
        return Transport(phone.bound, phone.facts.transport_serial, phone.transport_id)

    def within_reach(self) -> set[str]:
        """Serials of the phones whose adb server answers."""
        return {serial for serial, phone in self._by_serial().items() if phone.server not in self._failures}

    def learn(self, facts: Iterable[DeviceFacts]) -> None:
        """Take note of phones that were seen before this process was there, so that it can connect them again.

        Args:
            facts: Of phones of any server; what is known better here is left as it is.
        """
        facts = list(facts)
        self._known = {(one.adb_server, one.transport_serial or one.serial): one for one in facts}
        self._name_all()
        by_name = {str(server): server for server in self._servers}
        serials = {phone.facts.serial for phone in self._watched.values()}
        for one in facts:
            server = by_name.get(one.adb_server)
            if server is None or not one.transport_serial or one.serial in serials:
                continue
            phone = self._watched.get((server, one.transport_serial))
            if phone is None:
                phone = self._watched[server, one.transport_serial] = Watched(server, one)
                phone.lose()
            elif not phone.facts.identified:
                phone.take_for(one)
            self._best = None
            self.changed.set()

    def doubt(self, serial: str) -> None:
        """A command got no answer from it: ask it for a sign of life now.

        Args:
            serial: What it is called.
        """
        phone = self._by_serial().get(serial)
        if phone is not None:
            phone.probe_at = 0.0

    def trusts(self, serial: str) -> bool:
        """Whether it is ready, and no command has been without an answer since its last sign of life.

        Args:
            serial: What it is called.
        """
        phone = self._by_serial().get(serial)
        return phone is not None and phone.is_ready and phone.probe_at > 0

    def heard(self, serial: str) -> None:
        """A command was answered by it: that is a sign of life.

        Args:
            serial: What it is called.
        """
        phone = self._by_serial().get(serial)
        if phone is not None:
            phone.answered()
            self._best = None

    async def _follow(self, server: AdbServer, tasks: asyncio.TaskGroup) -> None:
        while True:
            look_again_at = time.monotonic() + self._poll_seconds
            before = self.phones()
            try:
                listing = await server.phones(timeout_seconds=_LIST_TIMEOUT_SECONDS)
            except AdbFailure as failure:
                self._take_failure(server, failure)
            else:
                self._failures.pop(server, None)
                self._take_listing(server, listing)
                self._forget_proofs()
                self._name_all()
            self._note_change(before)
            for phone in self._of(server):
                self._tend(phone, tasks)
            self._note_looked(server)
            await asyncio.sleep(max(0.0, look_again_at - time.monotonic()))

    def _note_looked(self, server: AdbServer) -> None:
        if not any(phone.listed == READY and phone.nameless for phone in self._of(server)):
            self._looked.add(server)
        if self._looked == set(self._servers):
            self.looked.set()

    def _take_failure(self, server: AdbServer, failure: AdbFailure) -> None:
        times = self._failures.get(server, (failure, 0))[1] + 1
        self._failures[server] = (failure, times)
        if failure.code is ErrorCode.ADB_SERVER_DOWN or times >= _FAILED_LOOKS:
            for phone in self._of(server):
                phone.lose(failure.message)

    def _take_listing(self, server: AdbServer, listing: Collection[ListedPhone]) -> None:
        now = datetime.now(UTC)
        for each in listing:
            self._follow_name(server, each)
            if (server, each.serial) not in self._watched:
                self._watched[server, each.serial] = Watched.first_seen(server, each, now=now)
        listed = {each.serial: each for each in listing}
        for phone in self._of(server):
            phone.look(listed.get(phone.facts.transport_serial), now=now)
            if phone.facts.seen_at < now - FORGOTTEN_AFTER:
                del self._watched[server, phone.facts.transport_serial]

    def _follow_name(self, server: AdbServer, listed: ListedPhone) -> None:
        """A phone may be listed by another name on the same connection, when a second one has the first name now."""
        before = next(
            (
                name
                for (of, name), phone in self._watched.items()
                if of == server
                and name != listed.serial
                and listed.transport_id
                and phone.transport_id == listed.transport_id
            ),
            None,
        )
        if before is not None:
            phone = self._watched[server, listed.serial] = self._watched.pop((server, before))
            phone.facts = replace(phone.facts, transport_serial=listed.serial)

    def _name_all(self) -> None:
        """Give every phone its name, with all of them in view; have the twins among them told apart."""
        phones = {phone.connection: phone for phone in self._watched.values() if phone.can_be_named}
        seen = [
            Sighting(
                connection,
                phone.facts.reported_serial or "",
                phone.marked,
                None if phone.set_aside or not phone.named else phone.facts.serial,
            )
            for connection, phone in phones.items()
            if phone.server not in self._failures
        ]
        own = {
            (str(phone.server), phone.facts.transport_serial): phone.facts
            for phone in self._watched.values()
            if phone.called
        }
        found = names(seen, (own | self._known).values(), self._are_one)
        told = hints(found)
        for connection, name in found.items():
            phones[connection].is_called(name.name, set_aside=name.set_aside, note=told.get(connection))
        self._best = None

    def _are_one(self, first: Connection, second: Connection) -> bool | None:
        pair = frozenset((first, second))
        if pair not in self._proofs and pair not in self._asked and self._group is not None:
            self._asked.add(pair)
            self._group.create_task(self._find_out_safely(first, second))
        return self._proofs.get(pair)

    async def _find_out_safely(self, first: Connection, second: Connection) -> None:
        try:
            await self._find_out(first, second)
        except Exception as error:  # noqa: BLE001  # one phone's fault must not end the watch over the others
            tell_fault("watcher", error, connections=(first, second))
        finally:
            self._asked.discard(frozenset((first, second)))

    async def _find_out(self, first: Connection, second: Connection) -> None:
        """Find out whether two connections lead to one phone; where that fails, again a poll later."""
        pair = frozenset((first, second))
        phones = {phone.connection: phone for phone in self._watched.values()}
        if first in phones and second in phones:
            before = self.phones()
            is_one = await are_one(phones[first].way, phones[second].way)
            if is_one is not None:
                self._proofs[pair] = is_one
                self._name_all()
                self._note_change(before)
            else:
                await asyncio.sleep(self._poll_seconds)

    def _forget_proofs(self) -> None:
        connections = {phone.connection for phone in self._watched.values()}
        self._proofs = {pair: is_one for pair, is_one in self._proofs.items() if pair <= connections}

    def _of(self, server: AdbServer) -> list[Watched]:
        return [phone for phone in self._watched.values() if phone.server == server]

    def _by_serial(self) -> dict[str, Watched]:
        """Of two connections to one phone the one that is ready."""
        if self._best is None:
            self._best = {}
            for phone in self._watched.values():
                other = self._best.get(phone.facts.serial)
                if not phone.nameless and (other is None or other.facts.state != READY):
                    self._best[phone.facts.serial] = phone
        return self._best

    def _note_change(self, before: Sequence[DeviceFacts]) -> None:
        self._best = None
        if self.phones() != before:
            self.changed.set()

    def _tend(self, phone: Watched, tasks: asyncio.TaskGroup) -> None:
        if id(phone) in self._tended or phone.server in self._failures:
            return
        chore = phone.chore()
        if chore is not None and (chore == phone.ask_who or self._responsible(phone.facts.serial)):
            self._tended.add(id(phone))
            tasks.create_task(self._busy(phone, chore))

    async def _busy(self, phone: Watched, chore: Chore) -> None:
        before = self.phones()
        try:
            await chore()
        except Exception as error:  # noqa: BLE001  # one phone's fault must not end the watch over the others
            tell_fault("watcher", error, serial=phone.facts.serial)
        finally:
            self._tended.discard(id(phone))
        self._name_all()
        self._note_change(before)
        self._note_looked(phone.server)
