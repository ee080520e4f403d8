"""Watches every phone of every adb server: yields what is there every two seconds and brings back what was lost.

    listed, answers a probe ----> device          no answer twice --> unresponsive (reconnected when it stays so)
    listed in another state ----> that state      offline for 10 s -> reconnected, if it is on the network
    known, but not listed ------> offline         reconnected, if it is on the network, with growing waits

A phone on the network is one whose transport is called `host:port`; only those can be connected again from here.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from workers.android.adb import AdbFailure, AdbServer, ListedPhone
from workers.android.reports import read_battery, read_serial
from workers.android.states import OFFLINE, READY, UNRESPONSIVE, hint

_LIST_TIMEOUT_SECONDS = 1.5
_PROBE_EVERY_SECONDS = 5.0
_FAILED_PROBES_UNRESPONSIVE = 2
_FAILED_PROBES_RECONNECT = 4
_OFFLINE_RECONNECT_SECONDS = 10.0
"""adb reconnects by itself in 2 (version 36) to 9 seconds (version 29); only then is a push of use."""
_FIRST_WAIT_SECONDS = 2.0
_LONGEST_WAIT_SECONDS = 30.0
_PROBE = "getprop ro.serialno; getprop ro.product.model; getprop ro.build.version.release; dumpsys battery"
_PROBED_LINES = 3
_ON_THE_NETWORK = re.compile(r".+:[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A phone as it was last seen."""

    serial: str
    """`ro.serialno`: the same phone by cable and by network is one phone. The transport's name until it was ready once."""
    adb_server: str
    """host:port."""
    transport_serial: str
    """What the adb server calls it."""
    state: str
    """`device` is ready; `unresponsive` is connected but answers no command; others are adb's own words."""
    hint: str | None
    """What a person can do about it, in plain words; None when it is ready."""
    model: str | None
    android_version: str | None
    battery_percent: int | None
    """0 to 100."""
    seen_at: datetime
    """When its adb server last listed it."""


@dataclass(slots=True)
class _Watched:
    """What is remembered of one transport between two looks."""

    server: AdbServer
    facts: DeviceFacts
    transport_id: str = ""
    listed: bool = True
    identified: bool = False
    """Whether it has said who it is."""
    lost_since: float | None = None
    """Since when it has been offline or missing; monotonic."""
    failed_probes: int = 0
    probe_at: float = 0.0
    reconnect_at: float = 0.0
    reconnect_wait_seconds: float = _FIRST_WAIT_SECONDS

    def show(self, state: str, *, advice: str | None = None) -> None:
        """Set the state and what to do about it."""
        self.facts = replace(self.facts, state=state, hint=advice or hint(state))


async def watch(servers: Sequence[AdbServer], *, poll_seconds: float = 2.0) -> AsyncIterator[list[DeviceFacts]]:
    """What is connected, now and after every look or change.

    Args:
        servers: The adb servers to watch; with none, one empty list after another.
        poll_seconds: From one look to the next; no phone or server that hangs makes it longer.

    Yields:
        Every phone seen since the start, those that are gone as `offline`; one entry per phone, sorted by serial.
    """
    watched: dict[tuple[AdbServer, str], _Watched] = {}
    while True:
        look_again_at = time.monotonic() + poll_seconds
        async with asyncio.TaskGroup() as tasks:
            lists = [tasks.create_task(_list(server)) for server in servers]
        for server, listing in zip(servers, lists, strict=True):
            _take_listing(watched, server, listing.result())
        shown = _snapshot(watched.values())
        yield shown

        async with asyncio.TaskGroup() as tasks:
            for phone in watched.values():
                if _needs_reconnecting(phone):
                    tasks.create_task(_reconnect(phone, timeout_seconds=poll_seconds))
                elif phone.listed and phone.facts.state in (READY, UNRESPONSIVE) and phone.probe_at <= time.monotonic():
                    tasks.create_task(_probe(phone, timeout_seconds=poll_seconds))
        if _snapshot(watched.values()) != shown:
            yield _snapshot(watched.values())
        await asyncio.sleep(max(0.0, look_again_at - time.monotonic()))


async def _list(server: AdbServer) -> list[ListedPhone] | AdbFailure:
    try:
        return await server.phones(timeout_seconds=_LIST_TIMEOUT_SECONDS)
    except AdbFailure as failure:
        return failure


def _take_listing(
    watched: dict[tuple[AdbServer, str], _Watched], server: AdbServer, listing: list[ListedPhone] | AdbFailure
) -> None:
    if isinstance(listing, AdbFailure):
        for phone in _of(watched, server):
            phone.show(OFFLINE, advice=listing.message)
        return
    listed = {each.serial: each for each in listing}
    for each in listing:
        if (server, each.serial) not in watched:
            facts = DeviceFacts(
                serial=each.serial,
                adb_server=str(server),
                transport_serial=each.serial,
                state=each.state,
                hint=None,
                model=None,
                android_version=None,
                battery_percent=None,
                seen_at=datetime.now(UTC),
            )
            watched[server, each.serial] = _Watched(server, facts)
    for phone in _of(watched, server):
        _take_state(phone, listed.get(phone.facts.transport_serial))


def _of(watched: dict[tuple[AdbServer, str], _Watched], server: AdbServer) -> Iterable[_Watched]:
    return (phone for phone in watched.values() if phone.server == server)


def _take_state(phone: _Watched, listed: ListedPhone | None) -> None:
    phone.listed = listed is not None
    state = OFFLINE if listed is None else listed.state
    if state != OFFLINE:
        phone.lost_since = None
    elif phone.lost_since is None:
        phone.lost_since = time.monotonic()
    if listed is None:
        phone.show(OFFLINE)
        return
    if listed.transport_id != phone.transport_id:
        phone.transport_id, phone.failed_probes, phone.probe_at = listed.transport_id, 0, 0.0
    if state == READY and phone.failed_probes >= _FAILED_PROBES_UNRESPONSIVE:
        state = UNRESPONSIVE
    phone.show(state)
    phone.facts = replace(phone.facts, seen_at=datetime.now(UTC))


def _needs_reconnecting(phone: _Watched) -> bool:
    now = time.monotonic()
    if not _ON_THE_NETWORK.fullmatch(phone.facts.transport_serial) or phone.reconnect_at > now:
        return False
    if phone.lost_since is not None:
        return not phone.listed or now - phone.lost_since > _OFFLINE_RECONNECT_SECONDS
    return phone.failed_probes >= _FAILED_PROBES_RECONNECT


async def _reconnect(phone: _Watched, *, timeout_seconds: float) -> None:
    address = phone.facts.transport_serial
    try:
        if phone.listed:
            await phone.server.disconnect(address, timeout_seconds=timeout_seconds / 2)
        await phone.server.connect(address, timeout_seconds=timeout_seconds / 2)
    except AdbFailure:
        phone.reconnect_at = time.monotonic() + phone.reconnect_wait_seconds
        phone.reconnect_wait_seconds = min(2 * phone.reconnect_wait_seconds, _LONGEST_WAIT_SECONDS)


async def _probe(phone: _Watched, *, timeout_seconds: float) -> None:
    try:
        output = await phone.server.shell(phone.facts.transport_serial, _PROBE, timeout_seconds=timeout_seconds)
    except AdbFailure:
        phone.failed_probes += 1
        if phone.failed_probes >= _FAILED_PROBES_UNRESPONSIVE:
            phone.show(UNRESPONSIVE)
        return
    *facts, battery = (*output.stdout.decode(errors="replace").split("\n", _PROBED_LINES), "", "", "", "")[:4]
    serial, model, android_version = (fact.strip() for fact in facts)
    phone.identified = True
    phone.failed_probes = 0
    phone.probe_at = time.monotonic() + _PROBE_EVERY_SECONDS
    phone.reconnect_wait_seconds = _FIRST_WAIT_SECONDS
    phone.facts = replace(
        phone.facts,
        serial=read_serial(serial) or phone.facts.transport_serial,
        model=model.replace("\0", "\ufffd") or None,
        android_version=android_version.replace("\0", "\ufffd") or None,
        battery_percent=read_battery(battery)["level_percent"],
    )
    phone.show(READY)


def _snapshot(watched: Iterable[_Watched]) -> list[DeviceFacts]:
    by_serial: dict[str, DeviceFacts] = {}
    for phone in watched:
        if phone.facts.state == READY and not phone.identified:
            continue  # its probe is on the way, and will say under which name it belongs
        other = by_serial.get(phone.facts.serial)
        if other is None or other.state != READY:
            by_serial[phone.facts.serial] = phone.facts
    return [by_serial[serial] for serial in sorted(by_serial)]
