"""The phone's end of the ADB protocol: listens, lets a real adb server in, and runs what it opens streams for.

host                          phone
 CNXN ------------------------> authorized?  yes: CNXN, and the phone is `device`
  |                                no: AUTH token, until `authorized` is set; the phone is `unauthorized`
 OPEN shell,v2:<line> ---------> OKAY, then WRTE / OKAY turns with the output, then CLSE
"""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from ops.phone import wire
from ops.phone.device import Device
from ops.phone.interpreter import run

_TOKEN_BYTES = 20
_CHUNK_BYTES = 256 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_NOT_OPENED = 0
_FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir"


class _Stream:
    """One stream that the host opened: its output, sent in turns, each acknowledged before the next."""

    def __init__(self, connection: "_Connection", *, number: int, host_number: int) -> None:
        self._connection = connection
        self.number = number
        self.host_number = host_number
        self.acknowledged = asyncio.Event()

    async def write(self, content: bytes) -> None:
        """Send output, one byte at a time if the phone drips."""
        drip_seconds = self._connection.device.behaviour.drip_seconds
        size_bytes = 1 if drip_seconds else min(_CHUNK_BYTES, self._connection.max_payload_bytes)
        for start in range(0, len(content), size_bytes):
            self.acknowledged.clear()
            await self._connection.send(wire.WRTE, self.number, self.host_number, content[start : start + size_bytes])
            await self.acknowledged.wait()
            if drip_seconds:
                await asyncio.sleep(drip_seconds)

    async def serve(self, service: str) -> None:
        """Run what the stream was opened for, and close it."""
        name, _, line = service.partition(":")
        device = self._connection.device
        if device.behaviour.answer == "hang":
            await device.control.until(lambda behaviour: behaviour.answer != "hang")
        else:
            result = await run(device, line)
            if device.behaviour.answer == "lost":
                self._connection.gone.set()
                return
            if "v2" in name.split(","):
                await self.write(_frames(result.stdout, result.stderr, result.exit_code))
            else:
                await self.write(result.stdout + result.stderr)
        await self._connection.close_stream(self)


def _frames(stdout: bytes, stderr: bytes, exit_code: int) -> bytes:
    frames = [
        wire.shell_frame(kind, content[start : start + _CHUNK_BYTES])
        for kind, content in ((wire.SHELL_STDOUT, stdout), (wire.SHELL_STDERR, stderr))
        for start in range(0, len(content), _CHUNK_BYTES)
    ]
    return b"".join((*frames, wire.shell_frame(wire.SHELL_EXIT, bytes([exit_code]))))


class _Connection:
    """One connection from an adb server."""

    def __init__(self, device: Device, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.device = device
        self.gone = asyncio.Event()
        self.finished = asyncio.Event()
        self.max_payload_bytes = wire.MAX_PAYLOAD_BYTES
        self._reader = reader
        self._writer = writer
        self._connected = False
        self._streams: dict[int, _Stream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._last_number = 0

    async def serve(self) -> None:
        """Until the host leaves, the phone vanishes, or its permission is withdrawn."""
        try:
            async with asyncio.TaskGroup() as tasks:
                endings = [tasks.create_task(each) for each in self._endings(tasks)]
                await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
                for task in (*endings, *self._tasks.values()):
                    task.cancel()
        finally:
            self._reset()
            self.finished.set()

    def _endings(self, tasks: asyncio.TaskGroup) -> tuple[Coroutine[None, None, object], ...]:
        control = self.device.control
        return (
            self._read(tasks),
            self.gone.wait(),
            control.until(lambda behaviour: self._connected and not behaviour.authorized),
        )

    def _reset(self) -> None:
        connection = self._writer.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()

    async def send(self, command: int, arg0: int, arg1: int, payload: bytes = b"") -> None:
        """Send one packet, unless the phone is a black hole at the moment."""
        await self.device.control.until(lambda behaviour: behaviour.answer != "black_hole")
        self._writer.write(wire.Packet(command, arg0, arg1, payload).encode())
        try:
            await self._writer.drain()
        except ConnectionError:
            self.gone.set()

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        try:
            while True:
                packet = await wire.read_packet(self._reader)
                await self.device.control.until(lambda behaviour: behaviour.answer != "black_hole")
                await self._take(packet, tasks)
        except (asyncio.IncompleteReadError, ConnectionError, wire.ProtocolError):
            return

    async def _take(self, packet: wire.Packet, tasks: asyncio.TaskGroup) -> None:
        match packet.command:
            case wire.CNXN:
                self.max_payload_bytes = min(packet.arg1, wire.MAX_PAYLOAD_BYTES)
                await self._admit(tasks)
            case wire.AUTH if packet.arg0 == wire.AUTH_SIGNATURE and not self._connected:
                await self._ask_for_key()
            case wire.OPEN if self._connected:
                await self._open(packet, tasks)
            case wire.OKAY if packet.arg1 in self._streams:
                self._streams[packet.arg1].acknowledged.set()
            case wire.WRTE if packet.arg1 in self._streams:
                await self.send(wire.OKAY, packet.arg1, packet.arg0)  # a command's input, which nothing here reads
            case wire.CLSE if packet.arg1 in self._streams:
                self._streams.pop(packet.arg1)
                self._tasks.pop(packet.arg1).cancel()
            case _:
                pass

    async def _admit(self, tasks: asyncio.TaskGroup) -> None:
        if self.device.behaviour.authorized:
            await self._say_who()
            return
        await self._ask_for_key()
        self._tasks[_NOT_OPENED] = tasks.create_task(self._say_who_once_authorized())

    async def _ask_for_key(self) -> None:
        await self.send(wire.AUTH, wire.AUTH_TOKEN, 0, os.urandom(_TOKEN_BYTES))

    async def _say_who_once_authorized(self) -> None:
        await self.device.control.until(lambda behaviour: behaviour.authorized)
        await self._say_who()

    async def _say_who(self) -> None:
        self._connected = True
        names = ("ro.product.name", "ro.product.model", "ro.product.device")
        facts = "".join(f"{name}={self.device.properties[name]};" for name in names)
        banner = f"device::{facts}features={_FEATURES}"
        await self.send(wire.CNXN, wire.VERSION, wire.MAX_PAYLOAD_BYTES, banner.encode())

    async def _open(self, packet: wire.Packet, tasks: asyncio.TaskGroup) -> None:
        if self.device.behaviour.answer == "hang_open":
            return
        service = packet.payload.rstrip(b"\0").decode(errors="replace")
        if service.partition(":")[0].split(",")[0] not in ("shell", "exec"):
            await self.send(wire.CLSE, _NOT_OPENED, packet.arg0)
            return
        self._last_number += 1
        stream = _Stream(self, number=self._last_number, host_number=packet.arg0)
        self._streams[stream.number] = stream
        await self.send(wire.OKAY, stream.number, stream.host_number)
        self._tasks[stream.number] = tasks.create_task(stream.serve(service))

    async def close_stream(self, stream: _Stream) -> None:
        """Tell the host that the stream is over."""
        self._streams.pop(stream.number, None)
        await self.send(wire.CLSE, stream.number, stream.host_number)
        self._tasks.pop(stream.number, None)


class _Listener:
    """Accepts adb servers while the phone is present."""

    def __init__(self, device: Device, *, host: str, port: int) -> None:
        self.port = port
        self._device = device
        self._host = host
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self._device, reader, writer)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    async def follow(self) -> None:
        """Vanish and come back as the behaviour says; until cancelled."""
        control = self._device.control
        while True:
            await control.until(lambda behaviour: not behaviour.present)
            await self.close()
            await control.until(lambda behaviour: behaviour.present)
            await self.listen()

    async def close(self) -> None:
        """Stop listening and reset every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = list(self._connections)
        for connection in connections:
            connection.gone.set()
        for connection in connections:
            await connection.finished.wait()


@asynccontextmanager
async def serving(device: Device, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve a phone to adb servers while the block runs; yields its port, which is a free one for 0."""
    listener = _Listener(device, host=host, port=port)
    await listener.listen()
    try:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(listener.follow())
            try:
                yield listener.port
            finally:
                following.cancel()
                await listener.close()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        [failure] = group.exceptions  # the block's own: its caller should not see how this is made
        raise failure from failure.__cause__
