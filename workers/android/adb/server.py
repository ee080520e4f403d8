"""Speaks the adb server's own protocol: lists phones, runs command lines and opens services, each under one time limit.

Source: SERVICES.TXT, OVERVIEW.TXT and shell_protocol.h in system/core/adb of the Android Open Source Project. The protocol
is spoken here rather than through a library because a call takes 1 to 4 ms this way, its time limit bounds all of it
(also the opening), and a phone that leaves in the middle is an error rather than empty output.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from typing_extensions import override

from contracts.errors import ErrorCode
from workers.android.adb.listing import ListedPhone, read_listing
from workers.android.adb.states import UNAUTHORIZED_HINT

MAX_OUTPUT_BYTES = 1024 * 1024

_STDOUT = 1
_STDERR = 2
_EXIT = 3
_FRAME_HEADER = struct.Struct("<BI")
_READ_BYTES = 64 * 1024
_NO_SERVICE = "ish.sign-of-life:"
_CLOSED = "closed"
_MAX_REQUEST_BYTES = 0xFFFF


class AdbFailure(Exception):
    """A phone or its adb server did not do what was asked.

    Args:
        code: What happened.
        message: One sentence for a person, with what to do where that is known.
        begun: Whether the command line may have reached the phone, so that its effect may have happened.
    """

    def __init__(self, code: ErrorCode, message: str, *, begun: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.begun = begun


@dataclass(frozen=True, slots=True)
class ShellOutput:
    """What a command line printed."""

    stdout: bytes
    stderr: bytes
    exit_code: int | None
    """None when the output was cut off."""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class AdbServer:
    """One adb server, on this machine or another."""

    host: str
    port: int

    @override
    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    async def phones(self, *, timeout_seconds: float) -> list[ListedPhone]:
        """Every phone this server knows, ready or not.

        Raises:
            AdbFailure: adb_server_down or timeout.
        """
        return read_listing(await self._ask("host:devices-l", timeout_seconds))

    async def features(self, serial: str, *, timeout_seconds: float) -> frozenset[str]:
        """What a connected phone can do beyond the first version of the protocol, such as `shell_v2`.

        Args:
            serial: The transport's name.
            timeout_seconds: For all of it.

        Raises:
            AdbFailure: It is not connected, or the server is down.
        """
        answer = await self._ask(f"{self._prefix(serial)}:features", timeout_seconds)
        return frozenset(answer.split(","))

    async def is_answering(self, serial: str, *, timeout_seconds: float) -> bool:
        """Whether a phone's adb answers on this connection, however long its commands take.

        It is asked for a service that does not exist: that costs it nothing, and disturbs nobody.

        Args:
            serial: The transport's name.
            timeout_seconds: For all of it.
        """
        try:
            async with asyncio.timeout(timeout_seconds), self._connection() as (reader, writer):
                await _request(reader, writer, self._route(serial))
                await _request(reader, writer, _NO_SERVICE)
        except AdbFailure as failure:
            return _CLOSED in failure.message
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return False
        return True

    async def connect(self, address: str, *, timeout_seconds: float) -> None:
        """Connect a phone on the network; one that is connected already stays so.

        Raises:
            AdbFailure: It did not answer, or the server is down.
        """
        answer = await self._ask(f"host:connect:{address}", timeout_seconds)
        if not answer.startswith(("connected to", "already connected to")):
            raise AdbFailure(ErrorCode.DEVICE_OFFLINE, answer)

    async def disconnect(self, address: str, *, timeout_seconds: float) -> None:
        """Forget a phone on the network.

        Raises:
            AdbFailure: It is not connected, or the server is down.
        """
        await self._ask(f"host:disconnect:{address}", timeout_seconds)

    async def shell(
        self, serial: str, line: str, *, timeout_seconds: float, max_output_bytes: int = MAX_OUTPUT_BYTES
    ) -> ShellOutput:
        """Run one command line on a phone.

        Args:
            serial: The transport's name.
            line: Given to the phone's shell as it is; quote what is not yours.
            timeout_seconds: For all of it, from connecting to the exit code.
            max_output_bytes: Output beyond this is cut off and the command is hung up.

        Raises:
            AdbFailure: There is no exit code to report; `begun` says whether the line may have run.
        """
        async with self.service(serial, f"shell,v2,raw:{line}", timeout_seconds=timeout_seconds) as (reader, _):
            return await _read_shell(reader, max_output_bytes)

    async def old_shell(self, serial: str, line: str, *, timeout_seconds: float) -> str:
        """What a command line prints on a phone without `shell_v2`; whether it succeeded is not known.

        Args:
            serial: The transport's name.
            line: Given to the phone's shell as it is.
            timeout_seconds: For all of it.

        Raises:
            AdbFailure: The phone cannot be reached, or took too long.
        """
        async with self.service(serial, f"shell:{line}", timeout_seconds=timeout_seconds) as (reader, _):
            return (await reader.read()).decode(errors="replace")

    @asynccontextmanager
    async def service(
        self, serial: str, name: str, *, timeout_seconds: float
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A service of a phone, open while the block runs; what ends the block early is told as an `AdbFailure`.

        Args:
            serial: The transport's name.
            name: As adb calls it, such as `sync:`.
            timeout_seconds: For all of it, from connecting to the end of the block.

        Raises:
            AdbFailure: It could not be opened, or the block met its time limit or a lost connection; `begun` says whether
                the phone may have been asked.
        """
        begun = False
        try:
            async with asyncio.timeout(timeout_seconds), self._connection() as (reader, writer):
                await _request(reader, writer, self._route(serial))
                begun = True
                await _request(reader, writer, name)
                yield reader, writer
        except AdbFailure as failure:
            raise AdbFailure(failure.code, failure.message, begun=begun) from failure
        except TimeoutError as error:
            sentence = f"{serial} did not finish within {timeout_seconds:.3g} s"
            raise AdbFailure(ErrorCode.TIMEOUT, sentence, begun=begun) from error
        except (
            OSError,
            RuntimeError,
            asyncio.IncompleteReadError,
        ) as error:  # uvloop has a RuntimeError for a closed socket
            code = ErrorCode.DEVICE_OFFLINE if begun else ErrorCode.ADB_SERVER_DOWN
            sentence = f"{serial} went away before it answered" if begun else f"adb server {self} hung up"
            raise AdbFailure(code, sentence, begun=begun) from error

    def _route(self, serial: str) -> str:
        """The request that leads to a phone."""
        return f"host:transport:{serial}"

    def _prefix(self, serial: str) -> str:
        """What stands before a question about a phone."""
        return f"host-serial:{serial}"

    async def _ask(self, request: str, timeout_seconds: float) -> str:
        try:
            async with asyncio.timeout(timeout_seconds), self._connection() as (reader, writer):
                await _request(reader, writer, request)
                return (await _read_string(reader)).decode(errors="replace")
        except TimeoutError as error:
            sentence = f"adb server {self} did not answer within {timeout_seconds:g} s"
            raise AdbFailure(ErrorCode.TIMEOUT, sentence) from error
        except (
            OSError,
            RuntimeError,
            asyncio.IncompleteReadError,
        ) as error:  # uvloop has a RuntimeError for a closed socket
            raise AdbFailure(ErrorCode.ADB_SERVER_DOWN, f"adb server {self} hung up") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except (OSError, RuntimeError) as error:
            sentence = f"no adb server answers at {self}; start one there with `adb -P {self.port} start-server`"
            raise AdbFailure(ErrorCode.ADB_SERVER_DOWN, sentence) from error
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


@dataclass(frozen=True, slots=True)
class BoundServer(AdbServer):
    """An adb server that leads to one connection of one phone, and to no other that may have the same name by then.

    adb gives each connection a number of its own and never gives it again.
    """

    transport_id: str
    """Empty for a server so old that it has no numbers; then the name decides."""

    @override
    def _route(self, serial: str) -> str:
        return f"host:transport-id:{self.transport_id}" if self.transport_id else f"host:transport:{serial}"

    @override
    def _prefix(self, serial: str) -> str:
        return f"host-transport-id:{self.transport_id}" if self.transport_id else f"host-serial:{serial}"


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str) -> None:
    content = request.encode()
    if len(content) > _MAX_REQUEST_BYTES:
        raise ValueError(f"adb takes requests of at most {_MAX_REQUEST_BYTES} bytes")
    writer.write(f"{len(content):04x}".encode() + content)
    await writer.drain()
    status = await reader.readexactly(4)
    if status != b"OKAY":
        reason = await _read_string(reader) if status == b"FAIL" else status
        raise _refusal(reason.decode(errors="replace"))


async def _read_string(reader: asyncio.StreamReader) -> bytes:
    try:
        size_bytes = int(await reader.readexactly(4), 16)
    except ValueError as error:
        raise AdbFailure(ErrorCode.ADB_SERVER_DOWN, "what answers there is no adb server") from error
    return await reader.readexactly(size_bytes)


def _refusal(reason: str) -> AdbFailure:
    if "unauthorized" in reason or "authorizing" in reason:
        return AdbFailure(
            ErrorCode.DEVICE_UNAUTHORIZED, f"the phone has not allowed this computer: {UNAUTHORIZED_HINT}"
        )
    if "not found" in reason:
        return AdbFailure(ErrorCode.DEVICE_NOT_FOUND, reason)
    return AdbFailure(
        ErrorCode.DEVICE_OFFLINE, f"the phone cannot be reached: {reason.splitlines()[0] if reason else ''}"
    )


async def _read_shell(reader: asyncio.StreamReader, max_output_bytes: int) -> ShellOutput:
    streams = {_STDOUT: bytearray(), _STDERR: bytearray()}
    room_bytes = max_output_bytes
    while True:
        kind, left_bytes = _FRAME_HEADER.unpack(await reader.readexactly(_FRAME_HEADER.size))
        if kind == _EXIT:
            if left_bytes != 1:
                raise AdbFailure(ErrorCode.DEVICE_OFFLINE, "the phone sent an exit code that is none")
            exit_code = (await reader.readexactly(1))[0]
            return ShellOutput(bytes(streams[_STDOUT]), bytes(streams[_STDERR]), exit_code)
        while left_bytes:
            content = await reader.read(min(left_bytes, _READ_BYTES))
            if not content:
                raise asyncio.IncompleteReadError(b"", left_bytes)
            left_bytes -= len(content)
            if kind in streams:
                streams[kind] += content[:room_bytes]
                room_bytes -= len(content)
            if room_bytes < 0:
                return ShellOutput(bytes(streams[_STDOUT]), bytes(streams[_STDERR]), None, truncated=True)
