"""Finds the picture in what `screencap -p` printed, and refuses what is not a whole PNG.

Source: PNG specification, third edition, section 5 (chunks and their checksums).
"""

import struct
import zlib
from dataclasses import dataclass

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SEARCHED_BYTES = 4096
_CHUNK = struct.Struct(">I4s")
_CHECKSUM_BYTES = 4


class NotAPicture(Exception):
    """There is no whole PNG; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole PNG."""

    content: bytes
    width: int
    """Pixels."""
    height: int
    """Pixels."""


def find_picture(printed: bytes) -> Picture:
    """The PNG in the output; phones with several displays print a warning before it.

    Raises:
        NotAPicture: None begins in the first 4 KiB, or it is damaged or cut off.
    """
    start = printed.find(_SIGNATURE, 0, _SEARCHED_BYTES)
    if start < 0:
        raise NotAPicture("no PNG signature in the output")
    position = start + len(_SIGNATURE)
    size: tuple[int, int] | None = None
    while position + _CHUNK.size <= len(printed):
        length_bytes, kind = _CHUNK.unpack_from(printed, position)
        end = position + _CHUNK.size + length_bytes
        checksum = printed[end : end + _CHECKSUM_BYTES]
        if len(checksum) < _CHECKSUM_BYTES:
            break
        if zlib.crc32(memoryview(printed)[position + 4 : end]) != int.from_bytes(checksum, "big"):
            raise NotAPicture(f"the PNG is damaged at byte {position - start}")
        if kind == b"IHDR":
            size = struct.unpack_from(">II", printed, position + _CHUNK.size)
        position = end + _CHECKSUM_BYTES
        if kind == b"IEND":
            if size is None:
                raise NotAPicture("the PNG does not say how large it is")
            return Picture(printed[start:position], *size)
    raise NotAPicture("the PNG ends too early")
