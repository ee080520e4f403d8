"""The two framings of the ADB protocol: 24-byte packets between adb server and phone, and `shell_v2` inside a stream.

Source: system/core/adb/protocol.txt and shell_protocol.h of the Android Open Source Project.
"""

import asyncio
import struct
from dataclasses import dataclass

CNXN = 0x4E584E43
AUTH = 0x48545541
OPEN = 0x4E45504F
OKAY = 0x59414B4F
CLSE = 0x45534C43
WRTE = 0x45545257

AUTH_TOKEN = 1
AUTH_SIGNATURE = 2
AUTH_PUBLIC_KEY = 3

VERSION = 0x01000001
MAX_PAYLOAD_BYTES = 1024 * 1024

SHELL_STDIN = 0
SHELL_STDOUT = 1
SHELL_STDERR = 2
SHELL_EXIT = 3
SHELL_CLOSE_STDIN = 4
SHELL_HEADER = struct.Struct("<BI")

_HEADER = struct.Struct("<6I")


class ProtocolError(Exception):
    """The other side sent what is no ADB packet."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One ADB packet; what `arg0` and `arg1` mean depends on the command."""

    command: int
    arg0: int
    arg1: int
    payload: bytes = b""

    def encode(self) -> bytes:
        """The packet as bytes; the data check is left 0, as every version since 0x01000001 allows."""
        magic = self.command ^ 0xFFFFFFFF
        return _HEADER.pack(self.command, self.arg0, self.arg1, len(self.payload), 0, magic) + self.payload


async def read_packet(reader: asyncio.StreamReader) -> Packet:
    """The next packet.

    Raises:
        ProtocolError: The header is not one.
        asyncio.IncompleteReadError: The connection ended.
    """
    command, arg0, arg1, size_bytes, _, magic = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if magic != command ^ 0xFFFFFFFF or size_bytes > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"not an ADB packet: command {command:#x}, {size_bytes} bytes")
    return Packet(command, arg0, arg1, await reader.readexactly(size_bytes))


def shell_frame(kind: int, content: bytes) -> bytes:
    """One `shell_v2` frame: SHELL_STDOUT, SHELL_STDERR, or SHELL_EXIT with one byte."""
    return SHELL_HEADER.pack(kind, len(content)) + content
