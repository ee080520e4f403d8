"""The `sync:` service: how `adb push`, `pull` and `ls` move files, one request after another on one stream.

Source: SYNC.TXT and file_sync_protocol.h in the adb module of the Android Open Source Project.
"""

import hashlib
import struct
import time
from collections.abc import Awaitable, Callable

from ops.simulators.phone.device import Device
from ops.simulators.phone.files import IS_FOLDER, NOT_FOUND, Content, Entry, FileError
from ops.simulators.phone.streams import Sink, Source

_HEADER = struct.Struct("<4sI")
_STAT_V1 = struct.Struct("<4s3I")
_STAT_V2 = struct.Struct("<4sI2Q4IQ3q")
_DENT_V1 = struct.Struct("<4s4I")
_DENT_V2 = struct.Struct("<4sI2Q4IQ3qI")
_LONGEST_PATH_BYTES = 1024
_LARGEST_DATA_BYTES = 64 * 1024
_FOLDER_MODE = 0o040771
_FILE_MODE = 0o100660
_NO_ENTRY = 2
_SHELL_USER = 2000


class _Refused(Exception):
    """The request cannot be carried out; the host shows the message."""


class SyncSession:
    """One stream's requests.

    Args:
        device: Whose files they are about.
        source: What the host sends.
        out: Takes the answers.
    """

    def __init__(self, device: Device, source: Source, out: Sink) -> None:
        self._device = device
        self._source = source
        self._out = out

    async def serve(self) -> None:
        """Answer until the host quits or leaves."""
        requests: dict[bytes, Callable[[str], Awaitable[None]]] = {
            b"STAT": self._stat_v1,
            b"STA2": self._stat_v2,
            b"LST2": self._list_stat_v2,
            b"LIST": self._list_v1,
            b"LIS2": self._list_v2,
            b"RECV": self._receive,
            b"SEND": self._send,
        }
        while len(header := await self._source.read_exactly(_HEADER.size)) == _HEADER.size:
            name, size_bytes = _HEADER.unpack(header)
            request = requests.get(name)
            if request is None or size_bytes > _LONGEST_PATH_BYTES:
                return
            path = (await self._source.read_exactly(size_bytes)).decode(errors="replace")
            self._device.running += 1
            try:
                await request(path)
            except (_Refused, FileError) as error:
                message = str(error).encode()
                self._out.write(_HEADER.pack(b"FAIL", len(message)) + message)
            finally:
                self._device.running -= 1
            await self._out.flush()

    async def _stat_v1(self, path: str) -> None:
        entry = self._device.files.entry(path)
        facts = (_mode(entry), entry.size_bytes, entry.changed_at) if entry else (0, 0, 0)
        self._out.write(_STAT_V1.pack(b"STAT", *facts))

    async def _stat_v2(self, path: str) -> None:
        self._out.write(_STAT_V2.pack(b"STA2", *_facts(self._device.files.entry(path))))

    async def _list_stat_v2(self, path: str) -> None:
        self._out.write(_STAT_V2.pack(b"LST2", *_facts(self._device.files.entry(path))))

    async def _list_v1(self, path: str) -> None:
        for entry in self._entries(path):
            name = entry.name.encode()
            self._out.write(_DENT_V1.pack(b"DENT", _mode(entry), entry.size_bytes, entry.changed_at, len(name)) + name)
        self._out.write(_DENT_V1.pack(b"DONE", 0, 0, 0, 0))

    async def _list_v2(self, path: str) -> None:
        for entry in self._entries(path):
            name = entry.name.encode()
            self._out.write(_DENT_V2.pack(b"DNT2", *_facts(entry), len(name)) + name)
        self._out.write(_DENT_V2.pack(b"DONE", *(0,) * 12))

    def _entries(self, path: str) -> list[Entry]:
        try:
            return self._device.files.entries(path)
        except FileError:
            return []  # as a phone answers for what is no folder

    async def _receive(self, path: str) -> None:
        for piece in self._read(path).chunks():
            self._out.write(_HEADER.pack(b"DATA", len(piece)) + piece)
            await self._out.drain()
        self._out.write(_HEADER.pack(b"DONE", 0))

    def _read(self, path: str) -> Content:
        try:
            return self._device.files.read(path)
        except FileError as error:
            # this is how adbd words them, and what adb prints
            reasons = {NOT_FOUND: "open failed: No such file or directory", IS_FOLDER: "read failed: Is a directory"}
            raise _Refused(reasons.get(str(error), str(error))) from error

    async def _send(self, path_and_mode: str) -> None:
        path = path_and_mode.rpartition(",")[0] or path_and_mode
        began = time.monotonic()
        content, changed_at = await self._pushed()
        files = self._device.files
        parent = path.rpartition("/")[0]
        try:
            if files.entry(parent) is None:
                files.make_folder(parent, parents=True)  # what `fixed_push_mkdir` promises
            files.write(path, content, changed_at=changed_at)
        except FileError as error:
            raise _Refused(f"couldn't create file: {error}") from error
        self._device.effects.append(
            "push",
            ["sync", path],
            running=self._device.running,
            serial=self._device.serial,
            path=path,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            seconds=time.monotonic() - began,
        )
        self._out.write(_HEADER.pack(b"OKAY", 0))

    async def _pushed(self) -> tuple[bytes, int]:
        """The bytes that follow a SEND, and the time the file was changed at."""
        content = bytearray()
        while True:
            header = await self._source.read_exactly(_HEADER.size)
            if len(header) < _HEADER.size:
                raise _Refused("the host left in the middle of a file")
            name, size = _HEADER.unpack(header)
            if name == b"DONE":
                return bytes(content), size
            if name != b"DATA" or size > _LARGEST_DATA_BYTES:
                raise _Refused(f"invalid data message {name!r}")
            content += await self._source.read_exactly(size)


def _mode(entry: Entry) -> int:
    return _FOLDER_MODE if entry.is_folder else _FILE_MODE


def _facts(entry: Entry | None) -> tuple[int, ...]:
    """What version 2 of stat says: error, device, inode, mode, links, user, group, size, and three times."""
    if entry is None:
        return (_NO_ENTRY, *(0,) * 10)
    times = (entry.changed_at,) * 3
    return (0, 1, 1, _mode(entry), 1, _SHELL_USER, _SHELL_USER, entry.size_bytes, *times)
