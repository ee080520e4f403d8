"""Finds the picture in what `screencap -p` printed, and refuses what is not a whole PNG.

Source: PNG specification, third edition, section 5 (chunks and their checksums).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SEARCHED_BYTES = 4096
_CHUNK = struct.Struct(">I4s")
_CHECKSUM_BYTES = 4
_HEADER_PLACE = 24
"""Of what follows width and height: depth, colour type, compression, filter and interlacing, a byte each."""
_BITS = 8
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""By colour type; those with a palette are left out."""
_WITH_ALPHA = (2, 4)
_NONE, _LEFT, _UP, _PAETH = 0, 1, 2, 4
"""How a row is written: as it is, or as the difference from what stands there."""
_PIXELS_A_BYTE = 50


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

    @property
    def is_black(self) -> bool:
        """Whether nothing but black was found in it; a picture that is written in an unusual way is not looked into."""
        return _is_black(self)


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


def _is_black(picture: Picture) -> bool:
    content = picture.content
    depth, colour_type, _, _, interlaced = content[_HEADER_PLACE : _HEADER_PLACE + 5]
    channels = _CHANNELS.get(colour_type)
    # a black picture is small: others need not be unpacked
    small = len(content) < picture.width * picture.height // _PIXELS_A_BYTE + _SEARCHED_BYTES
    if channels is None or depth != _BITS or interlaced or not small:
        return False
    row_bytes = 1 + channels * picture.width
    packed = b"".join(body for kind, body in _chunks(content) if kind == b"IDAT")
    rows = zlib.decompressobj().decompress(packed, row_bytes * picture.height)
    if len(rows) != row_bytes * picture.height:
        return False
    row = bytes(row_bytes - 1)
    for start in range(0, len(rows), row_bytes):
        below = _next_row(row, rows[start], rows[start + 1 : start + row_bytes], channels)
        if below is None or below not in _black_rows(channels, picture.width):
            return False
        row = below
    return True


def _next_row(above: bytes, method: int, written: bytes, channels: int) -> bytes | None:
    """A row of one colour from how it is written and the one above; None when it is not so simple."""
    if method == _NONE:
        return written
    if any(written[channels:]):
        return None
    if method == _LEFT or (method == _PAETH and not any(above)):
        return written[:channels] * (len(written) // channels)
    return above if method in (_UP, _PAETH) and not any(written[:channels]) else None


@cache
def _black_rows(channels: int, width: int) -> tuple[bytes, ...]:
    opaque = bytes(channels - 1) + b"\xff" if channels in _WITH_ALPHA else bytes(channels)
    return opaque * width, bytes(channels * width)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_SIGNATURE)
    while position + _CHUNK.size <= len(content):
        length_bytes, kind = _CHUNK.unpack_from(content, position)
        position += _CHUNK.size
        yield kind, content[position : position + length_bytes]
        position += length_bytes + _CHECKSUM_BYTES
