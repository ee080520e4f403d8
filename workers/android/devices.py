"""Knows which phones the adb servers have, picks one for a command, and lets one command at a time run on each."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from contracts.errors import ErrorCode, Permanent, Transient
from workers.android.adb import DEFAULT_PORT, AdbFailure, AdbServer, ListedPhone
from workers.android.reports import read_serial
from workers.android.states import READY, UNRESPONSIVE, not_configured, not_ready

_LISTING_SECONDS = 1.0
"""How old a list of phones may be when one is picked from it; a phone that left since is reported by its own failure."""
_LIST_TIMEOUT_SECONDS = 2.0
_IDENTIFY_TIMEOUT_SECONDS = 2.0
_SHUNNED_SECONDS = 10.0
"""How long what did not answer in time is left alone, so that it does not slow every other command."""
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Transport:
    """One connection from an adb server to a phone."""

    server: AdbServer
    serial: str
    """What the adb server calls it."""
    id: str
    """Another one each time it is connected."""


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone at the end of a transport."""

    transport: Transport
    serial: str
    """`ro.serialno`: the same phone by cable and by network is one phone. The transport's name until it could be asked."""
    state: str
    """adb's word for it (`device` is ready), or `unresponsive`."""


def parse_servers(value: str) -> list[AdbServer]:
    """The adb servers named by `ISH_ADB_SERVERS`.

    Args:
        value: `host:port` or `host`, comma-separated; empty names none.

    Raises:
        ValueError: A part is not an address.
    """
    servers = []
    for address in filter(None, (part.strip() for part in value.split(","))):
        host, colon, port = address.rpartition(":")
        if not colon:
            host, port = address, str(DEFAULT_PORT)
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
            raise ValueError(f"ISH_ADB_SERVERS: {address!r} is not host:port")
        servers.append(AdbServer(host, int(port)))
    return servers


class Fleet:
    """The phones of all adb servers, as one worker process sees them.

    Args:
        servers: Where to look; with none, every pick fails with device_not_configured.
    """

    def __init__(self, servers: Sequence[AdbServer]) -> None:
        self._servers = tuple(servers)
        self._phones: list[Phone] = []
        self._failures: dict[AdbServer, AdbFailure] = {}
        self._listed_at = float("-inf")
        self._listing = asyncio.Lock()
        self._serials: dict[Transport, str] = {}
        self._last_serials: dict[tuple[AdbServer, str], str] = {}
        self._known: set[str] = set()
        self._shunned_until: dict[AdbServer | Transport, float] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._queued: Counter[str] = Counter()

    async def pick(self, wanted: str | None) -> Phone:
        """The phone to use.

        Args:
            wanted: Its `ro.serialno`, or what its adb server calls it; None takes the least busy one that is ready.

        Raises:
            Transient: It is there but not ready, or was there before, or no adb server answers.
            Permanent: There is no such phone, or none at all.
        """
        if not self._servers:
            raise not_configured()
        matching = [phone for phone in await self._list() if wanted in (None, phone.serial, phone.transport.serial)]
        ready = [phone for phone in matching if phone.state == READY]
        if not ready:
            raise self._why_none(wanted, matching)
        return min(ready, key=lambda phone: (self._is_shunned(phone.transport), self._queued[phone.serial]))

    def shun(self, phone: Phone) -> None:
        """A command got no answer from it: prefer others for a while, and look again what is there."""
        self._shunned_until[phone.transport] = time.monotonic() + _SHUNNED_SECONDS
        self._listed_at = float("-inf")

    @asynccontextmanager
    async def alone(self, phone: Phone, *, wait_seconds: float) -> AsyncIterator[None]:
        """Hold the phone: within this process no other command runs on it meanwhile. First come, first served.

        Raises:
            TimeoutError: It was busy for `wait_seconds`.
        """
        lock = self._locks.setdefault(phone.serial, asyncio.Lock())
        self._queued[phone.serial] += 1
        try:
            async with asyncio.timeout(wait_seconds):
                await lock.acquire()
            try:
                yield
            finally:
                lock.release()
        finally:
            self._queued[phone.serial] -= 1

    def _why_none(self, wanted: str | None, matching: Sequence[Phone]) -> Transient | Permanent:
        if matching:
            first = min(matching, key=lambda phone: phone.state != "unauthorized")
            return not_ready(first.serial, first.state)
        if self._failures:
            failure = next(iter(self._failures.values()))
            return Transient(failure.code, failure.message)
        if wanted in self._known or (wanted is None and self._known):
            sentence = f"{wanted or 'every phone'} was connected before and is gone; connect it again"
            return Transient(ErrorCode.DEVICE_NOT_FOUND, sentence)
        if not self._phones:
            return not_configured()
        names = ", ".join(sorted(phone.serial for phone in self._phones))
        return Permanent(ErrorCode.DEVICE_NOT_FOUND, f"no phone is called {wanted}; connected: {names}")

    async def _list(self) -> list[Phone]:
        async with self._listing:
            if time.monotonic() - self._listed_at > _LISTING_SECONDS:
                async with asyncio.TaskGroup() as tasks:
                    lists = [tasks.create_task(self._list_server(server)) for server in self._servers]
                self._phones = [phone for listing in lists for phone in listing.result()]
                self._listed_at = time.monotonic()
                self._forget_old_transports()
                self._known |= {name for phone in self._phones for name in (phone.serial, phone.transport.serial)}
            return self._phones

    async def _list_server(self, server: AdbServer) -> list[Phone]:
        if self._is_shunned(server):
            return []
        try:
            listed = await server.phones(timeout_seconds=_LIST_TIMEOUT_SECONDS)
        except AdbFailure as failure:
            self._failures[server] = failure
            if failure.code is ErrorCode.TIMEOUT:
                self._shunned_until[server] = time.monotonic() + _SHUNNED_SECONDS
            return []
        self._failures.pop(server, None)
        async with asyncio.TaskGroup() as tasks:
            phones = [tasks.create_task(self._identify(server, phone)) for phone in listed]
        return [phone.result() for phone in phones]

    async def _identify(self, server: AdbServer, listed: ListedPhone) -> Phone:
        transport = Transport(server, listed.serial, listed.transport_id)
        serial = self._last_serials.get((server, listed.serial), listed.serial)
        if listed.state != READY or transport in self._serials:
            return Phone(transport, self._serials.get(transport, serial), listed.state)
        if self._is_shunned(transport):
            return Phone(transport, serial, UNRESPONSIVE)
        try:
            output = await server.shell(listed.serial, "getprop ro.serialno", timeout_seconds=_IDENTIFY_TIMEOUT_SECONDS)
        except AdbFailure:
            self._shunned_until[transport] = time.monotonic() + _SHUNNED_SECONDS
            return Phone(transport, serial, UNRESPONSIVE)
        serial = read_serial(output.stdout.decode(errors="replace")) or listed.serial
        self._serials[transport] = self._last_serials[server, listed.serial] = serial
        return Phone(transport, serial, READY)

    def _is_shunned(self, what: AdbServer | Transport) -> bool:
        return self._shunned_until.get(what, 0) > time.monotonic()

    def _forget_old_transports(self) -> None:
        now = time.monotonic()
        current = {phone.transport for phone in self._phones}
        self._serials = {transport: serial for transport, serial in self._serials.items() if transport in current}
        self._shunned_until = {what: until for what, until in self._shunned_until.items() if until > now}
