"""One connection to a phone as the watcher remembers it: what each look and each answer says about its state.

    listed, answers a probe ----> device          no answer in 3 s --> unresponsive (reconnected when it stays so)
    listed in another state ----> that state      offline for 10 s --> reconnected, if it is on the network
    known, but not listed ------> offline         reconnected, if it is on the network, with growing waits

A phone on the network is one whose transport is called `host:port`; only those can be connected again from here.
"""

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from contracts.errors import ErrorCode
from workers.android.adb import AdbFailure, AdbServer, ListedPhone
from workers.android.devices import DeviceFacts
from workers.android.reports import read_battery, read_screen, read_serial
from workers.android.states import OFFLINE, READY, UNRESPONSIVE, hint

_PROBE_TIMEOUT_SECONDS = 3.0
_PROBE_EVERY_SECONDS = 2.0
_REPORT_TIMEOUT_SECONDS = 3.0
_REPORT_EVERY_SECONDS = 15.0
_FAILED_PROBES_RECONNECT = 3
_OFFLINE_RECONNECT_SECONDS = 10.0
"""adb reconnects by itself in 2 (version 36) to 9 seconds (version 29); only then is a push of use."""
_CONNECT_TIMEOUT_SECONDS = 5.0
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 5.0
_WHO = "getprop ro.serialno; getprop ro.product.model; getprop ro.build.version.release"
_SIGN_OF_LIFE = "true"
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
        return self.confirmed and self.facts.state == READY

    @property
    def nameless(self) -> bool:
        """Whether it is ready but has never said who it is: it is being asked."""
        return self.facts.state == READY and not self.facts.identified

    def show(self, state: str, *, advice: str | None = None) -> None:
        """Set the state and what to do about it."""
        self.facts = replace(self.facts, state=state, hint=advice or hint(state))

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
        if listed.state == OFFLINE:
            self._note_lost()
        else:
            self.lost_since = None
            self.facts = replace(self.facts, seen_at=now)
        if listed.state != READY:
            self.confirmed = False
            self.show(listed.state)
        elif self.confirmed and not self.failed_probes:
            self.show(READY)
        # otherwise the last answer, or the missing one, says more than adb does

    def _note_lost(self) -> None:
        if self.lost_since is None:
            self.lost_since = time.monotonic()

    def chore(self) -> Chore | None:
        """What is to be asked or done next, by whoever is responsible for it."""
        now = time.monotonic()
        if self._needs_reconnecting(now):
            return self.reconnect
        if self.listed != READY:
            return None
        if not self.confirmed:
            return self.ask_who
        if self.probe_at <= now:
            return self.probe
        return self.report if self.report_at <= now and not self.failed_probes else None

    def _needs_reconnecting(self, now: float) -> bool:
        if not _ON_THE_NETWORK.fullmatch(self.facts.transport_serial) or self.reconnect_at > now:
            return False
        if self.lost_since is not None:
            return self.listed is None or now - self.lost_since > _OFFLINE_RECONNECT_SECONDS
        return self.failed_probes >= _FAILED_PROBES_RECONNECT

    async def reconnect(self) -> None:
        """Have its server forget it and connect it again."""
        address = self.facts.transport_serial
        try:
            if self.listed is not None:
                await self.server.disconnect(address, timeout_seconds=_CONNECT_TIMEOUT_SECONDS)
            await self.server.connect(address, timeout_seconds=_CONNECT_TIMEOUT_SECONDS)
        except AdbFailure:
            pass  # the next look says how it is
        self.reconnect_at = time.monotonic() + self.reconnect_wait_seconds
        self.reconnect_wait_seconds = min(2 * self.reconnect_wait_seconds, _LONGEST_WAIT_SECONDS)

    async def ask_who(self) -> None:
        """Learn its own serial, so that it is known by that from now on."""
        transport_id = self.transport_id
        printed = await self._ask(_WHO, _PROBE_TIMEOUT_SECONDS)
        if printed is None or transport_id != self.transport_id:
            return
        serial, model, android_version = (*(line.strip() for line in printed.splitlines()), "", "", "")[:3]
        self.facts = replace(
            self.facts,
            serial=read_serial(serial) or self.facts.transport_serial,
            model=model or "unknown",
            android_version=android_version or None,
        )
        self.confirmed = True
        self.reconnect_wait_seconds = _FIRST_WAIT_SECONDS
        self.answered()

    async def probe(self) -> None:
        """Ask for a sign of life."""
        if await self._ask(_SIGN_OF_LIFE, _PROBE_TIMEOUT_SECONDS) is not None:
            self.answered()

    def answered(self) -> None:
        """It gave a sign of life."""
        self.failed_probes = 0
        self.probe_at = time.monotonic() + _PROBE_EVERY_SECONDS
        if self.listed == READY and self.confirmed:
            self.show(READY)

    async def report(self) -> None:
        """Read what changes slowly; a phone that is too busy for it is no worse for that."""
        self.report_at = time.monotonic() + _REPORT_EVERY_SECONDS
        try:
            output = await self.server.shell(
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
            output = await self.server.shell(self.facts.transport_serial, line, timeout_seconds=timeout_seconds)
        except AdbFailure as failure:
            self.failed_probes += 1
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
