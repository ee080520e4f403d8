"""Moves files to and from a phone by adb's sync service, under one time limit and one size limit.

Source: SYNC.TXT in system/core/adb of the Android Open Source Project. Requests and answers are a four-letter id and a
little-endian length; content travels in pieces of at most 64 KiB.
"""

import asyncio
import stat
import struct

from contracts.errors import ErrorCode
from workers.android.adb.server import AdbFailure, AdbServer
from workers.handler import StoredArtifact

_HEADER = struct.Struct("<4sI")
_STAT = struct.Struct("<4sIII")
_PIECE_BYTES = 64 * 1024
_MODE = stat.S_IFREG | 0o644


class FileRefused(Exception):
    """The phone said why it does not read or write this file."""


class FileTooLarge(Exception):
    """It holds more than was allowed."""


async def write_file(
    server: AdbServer,
    serial: str,
    path: str,
    content: StoredArtifact,
    *,
    timeout_seconds: float,
    written_at: int,
) -> None:
    """Write a file on a phone, over an older one of that name; folders are made as needed.

    Args:
        server: The adb server that has the phone.
        serial: The transport's name.
        path: On the phone.
        content: Read as fast as the phone takes it.
        timeout_seconds: For all of it.
        written_at: The file's time, in Unix seconds.

    Raises:
        AdbFailure: The phone went away or took too long.
        FileRefused: It does not want this file.
    """
    async with server.service(serial, "sync:", timeout_seconds=timeout_seconds) as (reader, writer):
        name = f"{path},{_MODE}".encode()
        writer.write(_HEADER.pack(b"SEND", len(name)) + name)
        async for part in content.pieces():
            for start in range(0, len(part), _PIECE_BYTES):
                piece = part[start : start + _PIECE_BYTES]
                writer.write(_HEADER.pack(b"DATA", len(piece)))
                writer.write(piece)
                await writer.drain()
        writer.write(_HEADER.pack(b"DONE", written_at))
        await writer.drain()
        kind, length_bytes = await _answer(reader)
        if kind != b"OKAY":
            raise await _refusal(reader, kind, length_bytes)
        writer.write(_HEADER.pack(b"QUIT", 0))


async def read_file(server: AdbServer, serial: str, path: str, *, timeout_seconds: float, limit_bytes: int) -> bytes:
    """The content of a file on a phone.

    Args:
        server: The adb server that has the phone.
        serial: The transport's name.
        path: On the phone.
        timeout_seconds: For all of it.
        limit_bytes: The most that it may hold.

    Raises:
        AdbFailure: The phone went away or took too long.
        FileRefused: There is no such file, it is none, or adb may not read it.
        FileTooLarge: It holds more than `limit_bytes`.
    """
    async with server.service(serial, "sync:", timeout_seconds=timeout_seconds) as (reader, writer):
        name = path.encode()
        writer.write(_HEADER.pack(b"STAT", len(name)) + name)
        kind, mode, size_bytes, _ = _STAT.unpack(await reader.readexactly(_STAT.size))
        if kind != b"STAT":
            raise AdbFailure(ErrorCode.DEVICE_OFFLINE, "the phone's answer is not of the sync protocol")
        if mode == 0:
            raise FileRefused("No such file or directory")
        if not stat.S_ISREG(mode):
            raise FileRefused("Not a regular file")
        if size_bytes > limit_bytes:
            raise FileTooLarge
        writer.write(_HEADER.pack(b"RECV", len(name)) + name)
        content = bytearray()
        while True:
            kind, length_bytes = await _answer(reader)
            if kind == b"DONE":
                writer.write(_HEADER.pack(b"QUIT", 0))
                return bytes(content)
            if kind != b"DATA" or length_bytes > _PIECE_BYTES:
                raise await _refusal(reader, kind, length_bytes)
            content += await reader.readexactly(length_bytes)
            if len(content) > limit_bytes:
                raise FileTooLarge


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    kind, length_bytes = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    return kind, length_bytes


async def _refusal(reader: asyncio.StreamReader, kind: bytes, length_bytes: int) -> Exception:
    if kind != b"FAIL" or length_bytes > _PIECE_BYTES:
        return AdbFailure(ErrorCode.DEVICE_OFFLINE, "the phone's answer is not of the sync protocol")
    return FileRefused((await reader.readexactly(length_bytes)).decode(errors="replace"))
