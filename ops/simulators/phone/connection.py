"""One connection from an adb server: who may use the phone, and the streams that are opened on it.

host                          phone
 CNXN ------------------------> authorized?  yes: CNXN, and the phone is `device`
  |                                no: AUTH token, until `authorized` is set; the phone is `unauthorized`
 OPEN shell,v2:<line> ---------> OKAY, then WRTE / OKAY turns with the output, then CLSE
"""

import asyncio
import os
import socket
import struct
from collections.abc import Coroutine

from ops.simulators.phone import wire
from ops.simulators.phone.device import Device
from ops.simulators.phone.services import KNOWN, Stream, serve

_TOKEN_BYTES = 20
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_NOT_OPENED = 0
_FEATURES = "cmd,stat_v2,ls_v2,fixed_push_mkdir"
_OLD_FEATURES = "cmd"


class Connection:
    """One connection from an adb server.

    Args:
        device: The phone.
        reader: From the server.
        writer: To the server.
    """

    def __init__(self, device: Device, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.device = device
        self.gone = asyncio.Event()
        """Set to end it from outside."""
        self.finished = asyncio.Event()
        self._max_payload_bytes = wire.MAX_PAYLOAD_BYTES
        self._reader = reader
        self._writer = writer
        self._connected = False
        self._streams: dict[int, Stream] = {}
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
        if connection is not None and connection.fileno() >= 0:  # else the server reset it first
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
                self._max_payload_bytes = min(packet.arg1, wire.MAX_PAYLOAD_BYTES)
                await self._admit(tasks)
            case wire.AUTH if packet.arg0 == wire.AUTH_SIGNATURE and not self._connected:
                await self._ask_for_key()
            case wire.OPEN if self._connected:
                await self._open(packet, tasks)
            case wire.OKAY if packet.arg1 in self._streams:
                self._streams[packet.arg1].acknowledged.set()
            case wire.WRTE if packet.arg1 in self._streams:
                self._streams[packet.arg1].feed(packet.payload)
                await self.send(wire.OKAY, packet.arg1, packet.arg0)
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
        features = f"shell_v2,{_FEATURES}" if self.device.behaviour.shell_v2 else _OLD_FEATURES
        banner = f"device::{facts}features={features}"
        await self.send(wire.CNXN, wire.VERSION, wire.MAX_PAYLOAD_BYTES, banner.encode())

    async def _open(self, packet: wire.Packet, tasks: asyncio.TaskGroup) -> None:
        if self.device.behaviour.answer == "hang_open":
            return
        service = packet.payload.rstrip(b"\0").decode(errors="replace")
        name, *options = service.partition(":")[0].split(",")
        if name not in KNOWN or (options and not self.device.behaviour.shell_v2):
            await self.send(wire.CLSE, _NOT_OPENED, packet.arg0)
            return
        self._last_number += 1
        number, host_number = self._last_number, packet.arg0

        async def send(content: bytes) -> None:
            await self.send(wire.WRTE, number, host_number, content)

        stream = self._streams[number] = Stream(send, max_payload_bytes=self._max_payload_bytes)
        await self.send(wire.OKAY, number, host_number)
        self._tasks[number] = tasks.create_task(self._serve(stream, service, number, host_number))

    async def _serve(self, stream: Stream, service: str, number: int, host_number: int) -> None:
        answered = await serve(self.device, service, stream)
        if not answered:
            self.gone.set()
            return
        self._streams.pop(number, None)
        await self.send(wire.CLSE, number, host_number)
        self._tasks.pop(number, None)
