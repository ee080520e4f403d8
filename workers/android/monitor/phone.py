"""One connection to a phone as the watcher remembers it: what each look and each answer says about its state.

    listed, answers a probe ----> device          no answer in 3 s --> unresponsive
    ..., Android is starting ---> booting         its connection is dead for three probes --> reconnected
    ..., has no shell_v2 -------> unsupported     never reconnected for that
    listed in another state ----> that state      offline for 10 s --> reconnected
    known, but not listed ------> offline         connected again

A phone on the network is one whose transport is called `host:port`; only those can be connected again from here. Each
try waits longer than the one before, until the phone was well for a minute. A connection on which the phone's adb still
answers is never cut, however long its commands take: other programs on the adb server may be using it.
"""

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from contracts.errors import ErrorCode
from workers.android.adb.listing import ListedPhone
from workers.android.adb.server import AdbFailure, AdbServer, BoundServer
from workers.android.adb.states import AMBIGUOUS, BOOTING, OFFLINE, READY, UNRESPONSIVE, UNSUPPORTED, hint
from workers.android.monitor.devices import DeviceFacts
from workers.android.reports import read_battery, read_screen

_PROBE_TIMEOUT_SECONDS = 3.0
_PROBE_EVERY_SECONDS = 2.0
_REPORT_TIMEOUT_SECONDS = 3.0
_REPORT_EVERY_SECONDS = 15.0
_FAILED_PROBES_RECONNECT = 3
_OFFLINE_RECONNECT_SECONDS = 10.0
"""adb reconnects by itself in 2 (version 36) to 9 seconds (version 29); only then is a push of use."""
_CONNECT_TIMEOUT_SECONDS = 5.0
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0
_LONGEST_WAIT_OF_MISSING_SECONDS = 5.0
"""To connect one that is not connected harms nobody."""
_LOOK_AGAIN_SECONDS = 5.0
_WELL_SECONDS = 60.0
MARK_FILE = "/data/local/tmp/ish.name"
"""Where a phone keeps its serial once it was leased by that name."""
_WHO = (
    "getprop ro.serialno; getprop ro.product.model; getprop ro.build.version.release; "
    f"getprop sys.boot_completed; cat {MARK_FILE}"
)
_SIGN_OF_LIFE = "getprop sys.boot_completed"
_BOOTED = "1"
_SEPARATOR = "--ish-section--"
_REPORT = f"dumpsys battery; echo {_SEPARATOR}; wm size; echo {_SEPARATOR}; dumpsys power | grep mWakefulness="
_ON_THE_NETWORK = re.compile(r".+:[0-9]{1,5}")

Chore = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Watched:
    """A phone at one adb server."""

    server: AdbServer
    facts: DeviceFacts
    listed: str | None = None
    """adb's word for its state; None when it is not listed."""
    transport_id: str = ""
    confirmed: bool = False
    """Whether it has said who it is on this connection."""
    booted: bool = True
    """Whether Android had started when it was last asked."""
    unsupported: bool = False
    """Whether this connection has no `shell_v2`."""
    set_aside: bool = False
    """Whether it cannot be told from another phone as yet."""
    called: bool = False
    """Whether it ever had a name that was decided with the other phones in view."""
    named: bool = False
    """Whether it was given its name on this connection."""
    marked: bool = False
    """Whether it keeps its own serial as its name, written there by a holder of that name."""
    note: str | None = None
    """What a person should know of it although it is ready."""
    well_since: float | None = None
    lost_since: float | None = None
    """Since when it has been offline or missing; monotonic."""
    failed_probes: int = 0
    probe_at: float = 0.0
    report_at: float = 0.0
    reconnect_at: float = 0.0
    reconnect_wait_seconds: float = _FIRST_WAIT_SECONDS

    @classmethod
    def first_seen(cls, server: AdbServer, listed: ListedPhone, *, now: datetime) -> "Watched":
        """A phone that was not known before.

        Args:
            server: Which lists it.
            listed: What that says.
            now: The current time.
        """
        facts = DeviceFacts(
            serial=listed.serial,
            adb_server=str(server),
            transport_serial=listed.serial,
            state=listed.state,
            hint=None,
            model=None,
            android_version=None,
            battery_percent=None,
            screen=None,
            seen_at=now,
        )
        return cls(server, facts)

    @property
    def is_ready(self) -> bool:
        """Whether a command can be sent to it."""
        return self.confirmed and self.named and self.facts.state == READY

    @property
    def bound(self) -> BoundServer:
        """Its adb server, leading to the connection that it has now."""
        return BoundServer(self.server.host, self.server.port, self.transport_id)

    @property
    def connection(self) -> tuple[str, str, str]:
        """Which connection of which phone this is; another one each time it is connected."""
        return str(self.server), self.facts.transport_serial, self.transport_id

    @property
    def way(self) -> tuple[BoundServer, str]:
        """The connection that it has now, and its address there."""
        return self.bound, self.facts.transport_serial

    @property
    def can_be_named(self) -> bool:
        """Whether it is connected and has said who it is."""
        return self.confirmed and self.listed == READY and self.facts.reported_serial is not None

    @property
    def nameless(self) -> bool:
        """Whether it is ready but has never said who it is: it is being asked."""
        return self.facts.state == READY and not (self.facts.identified and (self.named or not self.confirmed))

    def show(self, state: str, *, advice: str | None = None) -> None:
        """Set the state and what to do about it."""
        self.facts = replace(self.facts, state=state, hint=advice or hint(state) or self.note)

    def show_answering(self) -> None:
        """Set the state of a phone that answers."""
        if self.unsupported:
            self.show(UNSUPPORTED)
        elif self.set_aside:
            self.show(AMBIGUOUS)
        else:
            self.show(READY if self.booted else BOOTING)

    def is_called(self, serial: str, *, set_aside: bool, note: str | None) -> None:
        """Give it its name among the phones.

        Args:
            serial: By which commands name it.
            set_aside: Whether nothing is to be sent to it, since it cannot be told from another phone.
            note: What a person should know about its name.
        """
        self.named, self.set_aside, self.note = True, set_aside, note
        self.called |= not set_aside
        if serial != self.facts.serial:
            self.facts = replace(self.facts, serial=serial)
        if self.confirmed and not self.failed_probes and self.listed == READY:
            self.show_answering()

    def take_for(self, known: DeviceFacts) -> None:
        """Take it for the phone that had this address before, until it says who it is.

        Args:
            known: Of that phone.
        """
        self.facts = replace(known, state=self.facts.state, hint=self.facts.hint, seen_at=self.facts.seen_at)

    def lose(self, advice: str | None = None) -> None:
        """It is not listed, or its server does not answer."""
        self.listed, self.confirmed = None, False
        self._note_lost()
        self.show(OFFLINE, advice=advice)

    def look(self, listed: ListedPhone | None, *, now: datetime) -> None:
        """Take in what its server says.

        Args:
            listed: Its line; None when there is none.
            now: The current time.
        """
        if listed is None:
            self.lose()
            return
        self.listed = listed.state
        if listed.transport_id != self.transport_id:
            self.transport_id, self.confirmed = listed.transport_id, False
            self.failed_probes, self.probe_at, self.report_at = 0, 0.0, 0.0
            self.unsupported, self.booted, self.set_aside, self.well_since = False, True, False, None
            self.named, self.marked, self.note = False, False, None
        if listed.state == OFFLINE:
            self._note_lost()
        else:
            self.lost_since = None
            self.facts = replace(self.facts, seen_at=now)
        if listed.state != READY:
            self.confirmed = False
            self.show(listed.state)
        elif self.confirmed and not self.failed_probes:
            self.show_answering()
        # otherwise the last answer, or the missing one, says more than adb does

    def _note_lost(self) -> None:
        if self.lost_since is None:
            self.lost_since = time.monotonic()

    def chore(self) -> Chore | None:
        """What is to be asked or done next, by whoever is responsible for it."""
        now = time.monotonic()
        if self._needs_reconnecting(now):
            return self.reconnect
        if self.listed != READY or self.unsupported:
            return self.ask_who if self.listed == READY and not self.confirmed else None
        if not self.confirmed:
            return self.ask_who
        if self.probe_at <= now:
            return self.probe
        return self.report if self.report_at <= now and self.booted and not self.failed_probes else None

    def _needs_reconnecting(self, now: float) -> bool:
        if not _ON_THE_NETWORK.fullmatch(self.facts.transport_serial) or self.reconnect_at > now:
            return False
        if self.lost_since is not None:
            return self.listed is None or now - self.lost_since > _OFFLINE_RECONNECT_SECONDS
        return self.failed_probes >= _FAILED_PROBES_RECONNECT

    async def reconnect(self) -> None:
        """Have its server connect it again, and forget it before where that is connected to nothing any more."""
        address, longest_seconds = self.facts.transport_serial, _LONGEST_WAIT_OF_MISSING_SECONDS
        if self.listed == READY and await self._is_connected():
            self.reconnect_at = time.monotonic() + _LOOK_AGAIN_SECONDS  # only its commands hang; that would not help it
            return
        try:
            if self.listed is not None:
                longest_seconds = _LONGEST_WAIT_SECONDS
                await self.server.disconnect(address, timeout_seconds=_CONNECT_TIMEOUT_SECONDS)
            await self.server.connect(address, timeout_seconds=_CONNECT_TIMEOUT_SECONDS)
        except AdbFailure:
            pass  # the next look says how it is
        self.reconnect_at = time.monotonic() + min(self.reconnect_wait_seconds, longest_seconds)
        self.reconnect_wait_seconds = min(2 * self.reconnect_wait_seconds, _LONGEST_WAIT_SECONDS)

    async def _is_connected(self) -> bool:
        return await self.bound.is_answering(self.facts.transport_serial, timeout_seconds=_PROBE_TIMEOUT_SECONDS)

    async def ask_who(self) -> None:
        """Learn what it says of itself; what it is called among the phones is decided with the others in view."""
        transport_id = self.transport_id
        if not self.unsupported:
            await self._look_at_features(transport_id)
        if self.unsupported:
            printed = await self._ask_in_the_old_way(_WHO)
        else:
            printed = await self._ask(_WHO, _PROBE_TIMEOUT_SECONDS)
        if printed is None or transport_id != self.transport_id:
            return
        said, model, android_version, boot, mark = (*(line.strip() for line in printed.splitlines()), *[""] * 5)[:5]
        self.facts = replace(
            self.facts, reported_serial=said or "", model=model or "unknown", android_version=android_version or None
        )
        self.booted, self.marked = boot == _BOOTED, bool(said) and mark == said
        self.confirmed = True
        self.answered()

    async def _look_at_features(self, transport_id: str) -> None:
        try:
            features = await self.bound.features(self.facts.transport_serial, timeout_seconds=_PROBE_TIMEOUT_SECONDS)
        except AdbFailure:
            return  # asking it says more
        self.unsupported = transport_id == self.transport_id and "shell_v2" not in features

    async def _ask_in_the_old_way(self, line: str) -> str | None:
        try:
            printed = await self.bound.old_shell(
                self.facts.transport_serial, f"{line} 2>/dev/null", timeout_seconds=_PROBE_TIMEOUT_SECONDS
            )
        except AdbFailure:
            self.show_answering()
            return None
        return printed.replace("\r\n", "\n").replace("\0", "\ufffd")

    async def probe(self) -> None:
        """Ask for a sign of life."""
        transport_id = self.transport_id
        printed = await self._ask(_SIGN_OF_LIFE, _PROBE_TIMEOUT_SECONDS)
        if printed is not None and transport_id == self.transport_id:
            self.booted = printed.strip() == _BOOTED
            self.answered()

    def answered(self) -> None:
        """It gave a sign of life."""
        self.failed_probes = 0
        self.probe_at = time.monotonic() + _PROBE_EVERY_SECONDS
        if self.listed == READY and self.confirmed:
            self._note_well()
            self.show_answering()

    def _note_well(self) -> None:
        if self.well_since is None:
            self.well_since = time.monotonic()
        elif time.monotonic() - self.well_since > _WELL_SECONDS:
            self.reconnect_wait_seconds = _FIRST_WAIT_SECONDS

    async def report(self) -> None:
        """Read what changes slowly; a phone that is too busy for it is no worse for that."""
        self.report_at = time.monotonic() + _REPORT_EVERY_SECONDS
        try:
            output = await self.bound.shell(
                self.facts.transport_serial, _REPORT, timeout_seconds=_REPORT_TIMEOUT_SECONDS
            )
        except AdbFailure:
            return
        printed = output.stdout.decode(errors="replace")
        battery, size, power = (*printed.split(f"{_SEPARATOR}\n"), "", "", "")[:3]
        self.facts = replace(
            self.facts, battery_percent=read_battery(battery)["level_percent"], screen=_screen(size, power)
        )

    async def _ask(self, line: str, timeout_seconds: float) -> str | None:
        try:
            output = await self.bound.shell(self.facts.transport_serial, line, timeout_seconds=timeout_seconds)
        except AdbFailure as failure:
            self.failed_probes, self.well_since = self.failed_probes + 1, None
            self.probe_at = time.monotonic()
            if self.listed == READY:
                # adb 29 may list a phone as ready that hangs up on every command
                self.show(UNRESPONSIVE if failure.code is ErrorCode.TIMEOUT else OFFLINE)
            return None
        return output.stdout.decode(errors="replace").replace("\0", "\ufffd")


def _screen(size_report: str, power_report: str) -> str | None:
    screen = read_screen(size_report, power_report)
    if screen["width"] is None:
        return None
    state = {True: " on", False: " off", None: ""}[screen["on"]]
    return f"{screen['width']}x{screen['height']}{state}"
