"""Writes the MP4 files of `screenrecord`: a movie of JPEG pictures, which players show although a phone would use H.264.

Source: ISO/IEC 14496-12 (boxes) and 14496-1 (the descriptor that says what the pictures are).
"""

import io
import struct

from PIL import Image

_JPEG = 0x6C
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


class Movie:
    """Pictures, one after another.

    Args:
        width: Pixels.
        height: Pixels.
        frames_a_second: How fast they are shown.
    """

    def __init__(self, width: int, height: int, *, frames_a_second: int) -> None:
        self._size = (width, height)
        self._rate = frames_a_second
        self._frames: list[bytes] = []

    def add(self, picture: bytes) -> None:
        """Append a picture: PNG bytes of the movie's size."""
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(picture)) as image:
            image.convert("RGB").save(buffer, "JPEG", quality=60)
        self._frames.append(buffer.getvalue())

    def content(self) -> bytes:
        """The whole file."""
        kind = _box(b"ftyp", b"isom" + struct.pack(">I", 0x200) + b"isomiso2mp41")
        data = _box(b"mdat", b"".join(self._frames))
        return kind + data + self._movie(first=len(kind) + 8)

    def _movie(self, *, first: int) -> bytes:
        head = struct.pack(">4I", 0, 0, self._rate, len(self._frames))
        rest = struct.pack(">IH10x", 0x10000, 0x100) + _MATRIX + bytes(24) + struct.pack(">I", 2)
        return _box(b"moov", _full_box(b"mvhd", head + rest) + self._track(first))

    def _track(self, first: int) -> bytes:
        width, height = self._size
        head = struct.pack(">5I8x4H", 0, 0, 1, 0, len(self._frames), 0, 0, 0, 0) + _MATRIX
        head += struct.pack(">2I", width << 16, height << 16)
        times = struct.pack(">4I2H", 0, 0, self._rate, len(self._frames), 0x55C4, 0)
        handler = struct.pack(">I4s12x", 0, b"vide") + b"screen\0"
        reference = _box(b"dinf", _full_box(b"dref", struct.pack(">I", 1) + _full_box(b"url ", b"", flags=1)))
        information = _full_box(b"vmhd", bytes(8), flags=1) + reference + self._samples(first)
        media = _full_box(b"mdhd", times) + _full_box(b"hdlr", handler) + _box(b"minf", information)
        return _box(b"trak", _full_box(b"tkhd", head, flags=3) + _box(b"mdia", media))

    def _samples(self, first: int) -> bytes:
        count = len(self._frames)
        sizes = struct.pack(">2I", 0, count) + struct.pack(f">{count}I", *map(len, self._frames))
        tables = (
            (b"stsd", struct.pack(">I", 1) + self._description()),
            (b"stts", struct.pack(">3I", 1, count, 1)),
            (b"stsc", struct.pack(">4I", 1, 1, count, 1)),
            (b"stsz", sizes),
            (b"stco", struct.pack(">2I", 1, first)),
        )
        return _box(b"stbl", b"".join(_full_box(name, content) for name, content in tables))

    def _description(self) -> bytes:
        width, height = self._size
        entry = struct.pack(">6xH16x2H2I4xH32xHh", 1, width, height, 0x480000, 0x480000, 1, 24, -1)
        decoder = _descriptor(4, struct.pack(">2B3x2I", _JPEG, 0x11, 0, 0))
        stream = _descriptor(3, struct.pack(">HB", 1, 0) + decoder + _descriptor(6, b"\x02"))
        return _box(b"mp4v", entry + _full_box(b"esds", stream))


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def _full_box(name: bytes, content: bytes, *, flags: int = 0) -> bytes:
    return _box(name, struct.pack(">I", flags) + content)


def _descriptor(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content
