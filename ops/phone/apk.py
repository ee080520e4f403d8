"""Reads the package's name out of an APK, and writes the smallest file that passes for one.

An APK is a ZIP with a manifest in Android's binary XML: a pool of strings, then chunks for the start and end of each
element. Source: ResourceTypes.h in frameworks/base of the Android Open Source Project.
"""

import io
import struct
import zipfile

_MANIFEST = "AndroidManifest.xml"
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024
_XML = 0x0003
_STRING_POOL = 0x0001
_START_ELEMENT = 0x0102
_UTF8 = 1 << 8
_CHUNK = struct.Struct("<HHI")
_POOL = struct.Struct("<HHIIIIII")
_ELEMENT = struct.Struct("<HHIIIIIHHHHHH")
_ATTRIBUTE = struct.Struct("<IIIHBBI")
_NONE = 0xFFFFFFFF
_LONG_LENGTH = 0x80
_STRING_TYPE = 3


class NotAnApk(Exception):
    """The file holds no app."""


def read_apk(content: bytes) -> tuple[str, str]:
    """An app's package, and the name its icon gets: the last part of it.

    Args:
        content: The whole file.

    Raises:
        NotAnApk: It is no ZIP with a manifest that names a package.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.getinfo(_MANIFEST).file_size > _MAX_MANIFEST_BYTES:
                raise NotAnApk("its manifest is too large")
            package = _package(archive.read(_MANIFEST))
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:  # all of them `zipfile`'s own
        raise NotAnApk("Failed to parse the file: no ZIP with an AndroidManifest.xml") from error
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise NotAnApk("Failed to parse its AndroidManifest.xml") from error
    return package, package.rpartition(".")[2].capitalize()


def write_apk(package: str) -> bytes:
    """A file that installs on the simulated phone as this package, and on no other."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(_MANIFEST, _manifest(package))
    return buffer.getvalue()


def _package(manifest: bytes) -> str:
    kind, header_bytes, _ = _CHUNK.unpack_from(manifest)
    if kind != _XML:
        raise NotAnApk("its manifest is not Android's binary XML")
    strings: list[str] = []
    position = header_bytes
    while position < len(manifest):
        kind, _, size_bytes = _CHUNK.unpack_from(manifest, position)
        chunk = manifest[position : position + size_bytes]
        if kind == _STRING_POOL:
            strings = _strings(chunk)
        elif kind == _START_ELEMENT:
            return _attribute(chunk, strings, "package")
        position += max(size_bytes, _CHUNK.size)
    raise NotAnApk("its manifest is empty")


def _strings(chunk: bytes) -> list[str]:
    _, header_bytes, _, count, _, flags, start, _ = _POOL.unpack_from(chunk)
    offsets = struct.unpack_from(f"<{count}I", chunk, header_bytes)
    read = _utf8_string if flags & _UTF8 else _utf16_string
    return [read(chunk, start + offset) for offset in offsets]


def _utf8_string(chunk: bytes, position: int) -> str:
    _, position = _utf8_length(chunk, position)  # in characters
    length, position = _utf8_length(chunk, position)
    return chunk[position : position + length].decode()


def _utf8_length(chunk: bytes, position: int) -> tuple[int, int]:
    """A length of one or two bytes, and where it ends."""
    length = chunk[position]
    if not length & _LONG_LENGTH:
        return length, position + 1
    return (length & ~_LONG_LENGTH) << 8 | chunk[position + 1], position + 2


def _utf16_string(chunk: bytes, position: int) -> str:
    (length,) = struct.unpack_from("<H", chunk, position)
    position += 2
    if length & _LONG_LENGTH << 8:
        length = (length & 0x7FFF) << 16 | struct.unpack_from("<H", chunk, position)[0]
        position += 2
    return str(chunk[position : position + 2 * length], "utf-16-le")


def _attribute(chunk: bytes, strings: list[str], name: str) -> str:
    element = _ELEMENT.unpack_from(chunk)
    extension, start, size_bytes, count = 16, element[7], element[8], element[9]
    for place in range(count):
        _, key, raw, _, _, kind, data = _ATTRIBUTE.unpack_from(chunk, extension + start + place * size_bytes)
        if strings[int(key)] == name:
            return strings[int(data if kind == _STRING_TYPE else raw)]
    raise NotAnApk("its manifest names no package")


def _manifest(package: str) -> bytes:
    strings = ["manifest", "package", package]
    texts = b"".join(struct.pack("<H", len(text)) + text.encode("utf-16-le") + b"\0\0" for text in strings)
    offsets, position = [], 0
    for text in strings:
        offsets.append(position)
        position += 2 * len(text) + 4
    texts += b"\0" * (-len(texts) % 4)
    start = _POOL.size + 4 * len(offsets)
    header = _POOL.pack(_STRING_POOL, _POOL.size, start + len(texts), len(strings), 0, 0, start, 0)
    pool = header + struct.pack(f"<{len(offsets)}I", *offsets) + texts
    attribute = _ATTRIBUTE.pack(_NONE, 1, 2, 8, 0, _STRING_TYPE, 2)
    size_bytes = _ELEMENT.size + len(attribute)
    element = _ELEMENT.pack(_START_ELEMENT, 16, size_bytes, 1, _NONE, _NONE, 0, 20, _ATTRIBUTE.size, 1, 0, 0, 0)
    return (
        _CHUNK.pack(_XML, _CHUNK.size, _CHUNK.size + len(pool) + len(element + attribute)) + pool + element + attribute
    )
