"""One phone that this worker holds: its lease, the fence on the phone itself, and the way to it.

The fence is a file on the phone with the newest holder's token. Every line that a worker sends begins with a check of
it, so that a line which a frozen worker sends late does nothing: see `ops/decisions/0007-fence-on-the-phone.md`.
"""

import asyncio
import re
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from typing_extensions import override

from contracts.errors import Deferred, ErrorCode, Permanent
from contracts.logs import get_logger
from workers.android.adb.server import AdbFailure, BoundServer
from workers.android.adb.states import LOOK_AGAIN_SECONDS, OFFLINE, UNRESPONSIVE, UNSUPPORTED, not_ready, unsupported
from workers.android.monitor.devices import Transport
from workers.android.monitor.identity import usable_serial
from workers.android.monitor.phone import MARK_FILE
from workers.android.monitor.watch import Watcher
from workers.android.session import FENCE_FILE

_FENCE_SECONDS = 3.0
_LOOK_SECONDS = 0.1
_FENCE_TRIES = 3
_TOKEN = re.compile(r"[A-Za-z0-9._:-]{1,64}")

_log = get_logger(job="phones")


class Incarnation(Protocol):
    """This worker, as others see it."""

    @property
    def incarnation(self) -> UUID:
        """The one that it has now."""

    @property
    def sure_seconds(self) -> float:
        """For how long from now no other worker can take over what this one holds."""


@dataclass(frozen=True)
class LeasedServer(BoundServer):
    """An adb server that leads to one connection only, and sends nothing once the lease of the phone is not sure."""

    is_sure: Callable[[], bool]

    @asynccontextmanager
    @override
    async def service(
        self, serial: str, name: str, *, timeout_seconds: float
    ) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        if not self.is_sure():
            raise AdbFailure(ErrorCode.DEVICE_BUSY, f"another worker may hold {serial} now; nothing was sent")
        async with super().service(serial, name, timeout_seconds=timeout_seconds) as streams:
            yield streams


@dataclass(slots=True)
class Hold:
    """A lease of one phone, as long as this worker has it."""

    serial: str
    token: int
    holder: UUID
    """The incarnation that took it."""
    registration: Incarnation
    watcher: Watcher
    lock: asyncio.Lock
    """The phone's own: it outlives this hold, and so does a command that was begun under an earlier one."""
    leaving: bool = False
    """Whether it is being given away."""
    left: bool = False
    """Whether its queue was left: this hold is over."""
    fence_unsupported: bool = False
    estranged: bool = False
    """Whether what is connected by this name is not the phone that was taken: the hold is over, as far as it goes."""
    _fenced: bool = False
    _connection: Transport | None = None
    """The connection on which the phone last showed this hold's token."""

    @property
    def is_sure(self) -> bool:
        """Whether no other worker can have taken the phone."""
        return not self.left and self.holder == self.registration.incarnation and self.registration.sure_seconds > 0

    @asynccontextmanager
    async def opened(self, *, patience_seconds: float = 0.0) -> AsyncIterator[tuple[Transport, str | None]]:
        """Have the phone to oneself: yields the way to it, and the fence that each line must carry.

        Args:
            patience_seconds: How long a phone that is connected, but answers nothing, is waited for before it counts as
                a phone that took too long; with 0 it is one that is not ready.

        Raises:
            Deferred: The phone is not ready, or may be another worker's; nothing was sent.
            Permanent: It answered nothing for so long, or never will; nothing was sent.
        """
        async with self.lock:
            try:
                async with asyncio.timeout(patience_seconds or None):
                    transport = await self._answering(wait=patience_seconds > 0)
                    if not self._is_fenced(transport):
                        await self.fence(transport)
                        self._be_sure()
            except TimeoutError:
                self.unanswered()
                sentence = f"{self.serial} answered nothing within {patience_seconds:g} s; nothing was sent to it"
                raise Permanent(ErrorCode.TIMEOUT, sentence, details={"device": self.serial}) from None
            server = LeasedServer(transport.server.host, transport.server.port, transport.id, lambda: self.is_sure)
            leased = Transport(server, transport.serial, transport.id)
            yield leased, None if self.fence_unsupported else str(self.token)

    async def _answering(self, *, wait: bool) -> Transport:
        while True:
            try:
                return self.transport()
            except Deferred as error:
                if not wait or error.details.get("state") != UNRESPONSIVE:
                    raise
            await asyncio.sleep(_LOOK_SECONDS)

    def transport(self) -> Transport:
        """The way to the phone.

        Raises:
            Deferred: It is not ready, or may be another worker's.
            Permanent: It will never be ready.
        """
        self._be_sure()
        transport = self.watcher.transport_of(self.serial)
        if transport is None:
            facts = self.watcher.facts_of(self.serial)
            if facts is not None and facts.state == UNSUPPORTED:
                raise unsupported(self.serial)
            raise not_ready(
                self.serial, facts.state if facts else OFFLINE, advice=facts.hint if facts is not None else None
            )
        return transport

    def answered(self) -> None:
        """A command got its answer from the phone."""
        self.watcher.heard(self.serial)

    def unanswered(self) -> None:
        """A command did not: the phone is asked for a sign of life."""
        self.watcher.doubt(self.serial)

    def refused(self) -> None:
        """The phone knows another holder, or none: before the next command its fence is looked at."""
        self._fenced = False

    async def fence(self, transport: Transport) -> None:
        """Write the token to the phone, so that it refuses what earlier holders send from now on.

        It is compared and swapped: this worker may be frozen between looking and writing, and wake up when another has
        written its own. On a new connection a phone that was fenced before must show the token by itself: one that does
        not may be another phone with the same name, and is none that this hold may use.

        Args:
            transport: The way to it.

        Raises:
            Deferred: The phone did not answer, or another worker has fenced it.
        """
        mine = str(self.token)
        try:
            found = await self._read(transport)
            if found != mine and self._connection is not None and self._connection != transport:
                self.estranged = True
                raise _busy(self.serial)
            for _ in range(_FENCE_TRIES):
                if found == mine:
                    await self._mark(transport)
                    self._fenced, self._connection = True, transport
                    return
                self._be_sure()
                found, before = await self._swap(transport, found), found
                if not found and not before:
                    _log.warning("fence_unsupported", serial=self.serial)
                    self.fence_unsupported = True
                    return
        except AdbFailure as failure:
            self.watcher.doubt(self.serial)
            raise Deferred(failure.code, failure.message, retry_after_seconds=LOOK_AGAIN_SECONDS) from failure
        raise _busy(self.serial)

    def _is_fenced(self, transport: Transport) -> bool:
        return self.fence_unsupported or (self._fenced and self._connection == transport)

    async def _mark(self, transport: Transport) -> None:
        """Have the phone keep its serial as its name, so that it is known by that wherever it is connected next."""
        facts = self.watcher.facts_of(self.serial)
        if facts is not None and facts.reported_serial == self.serial and usable_serial(self.serial) is not None:
            line = f"f=; read f <{MARK_FILE}; [ \"$f\" = '{self.serial}' ] || echo '{self.serial}' >{MARK_FILE}"
            await transport.server.shell(transport.serial, line, timeout_seconds=_FENCE_SECONDS)

    async def _read(self, transport: Transport) -> str:
        output = await transport.server.shell(transport.serial, f"cat {FENCE_FILE}", timeout_seconds=_FENCE_SECONDS)
        return _token(output.stdout)

    async def _swap(self, transport: Transport, found: str) -> str:
        new = f"{FENCE_FILE}.{self.token}"
        line = (
            f'f=; read f <{FENCE_FILE}; [ "$f" = "{found}" ] && echo {self.token} >{new} && mv {new} {FENCE_FILE}; '
            f"cat {FENCE_FILE}"
        )
        output = await transport.server.shell(transport.serial, line, timeout_seconds=_FENCE_SECONDS)
        return _token(output.stdout)

    def _be_sure(self) -> None:
        if not self.is_sure:
            raise _busy(self.serial)


def _token(content: bytes) -> str:
    found = content.decode(errors="replace").strip()
    return found if _TOKEN.fullmatch(found) else ""


def _busy(serial: str) -> Deferred:
    sentence = f"another worker may hold {serial} now"
    return Deferred(ErrorCode.DEVICE_BUSY, sentence, retry_after_seconds=LOOK_AGAIN_SECONDS, details={"device": serial})
