"""Reads what an installer asks of an APK, and writes the smallest file that passes for one.

An APK is a ZIP with a manifest in Android's binary XML: a pool of strings, then chunks for the start and end of each
element. Source: ResourceTypes.h in frameworks/base of the Android Open Source Project.
"""

import io
import struct
import zipfile
from dataclasses import dataclass

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
_INT_TYPE = 0x10
_BOOLEAN_TYPE = 0x12
_SIGNATURE = "META-INF/CERT.RSA"


class NotAnApk(Exception):
    """The file holds no app."""


@dataclass(frozen=True, slots=True)
class Apk:
    """What an APK says of itself."""

    package: str
    version_code: int = 1
    split: str | None = None
    """Its name, if it is a part of a split app; the base has none."""
    test_only: bool = False
    split_required: bool = False
    """Whether the base cannot be installed alone."""
    signer: bytes = b""
    """Of no real signature: two APKs of one signer have the same."""

    @property
    def name(self) -> str:
        """What its icon is called: the last part of its package."""
        return self.package.rpartition(".")[2].capitalize()


def read_apk(content: bytes) -> Apk:
    """What an APK says of itself.

    Args:
        content: The whole file.

    Raises:
        NotAnApk: It is no ZIP with a manifest that names a package.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.getinfo(_MANIFEST).file_size > _MAX_MANIFEST_BYTES:
                raise NotAnApk("its manifest is too large")
            signer = archive.read(_SIGNATURE) if _SIGNATURE in archive.namelist() else b""
            return _read_manifest(archive.read(_MANIFEST), signer)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:  # all of them `zipfile`'s own
        raise NotAnApk("Failed to parse the file: no ZIP with an AndroidManifest.xml") from error
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise NotAnApk("Failed to parse its AndroidManifest.xml") from error


def write_apk(
    package: str,
    *,
    version_code: int = 1,
    split: str | None = None,
    test_only: bool = False,
    split_required: bool = False,
    signer: bytes = b"",
    padding: bytes = b"",
) -> bytes:
    """A file that installs on the simulated phone as this package, and on no other.

    Args:
        package: Its name.
        version_code: Its version.
        split: Its name, if it is a part of a split app.
        test_only: Whether only `-t` installs it.
        split_required: Whether it cannot be installed without its splits.
        signer: Stands for who signed it.
        padding: More content, to make it as large as a real one.
    """
    buffer = io.BytesIO()
    apk = Apk(package, version_code, split, test_only=test_only, split_required=split_required)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(_MANIFEST, _manifest(apk))
        if signer:
            archive.writestr(_SIGNATURE, signer)
        if padding:
            archive.writestr("assets/padding", padding)
    return buffer.getvalue()


def _read_manifest(manifest: bytes, signer: bytes) -> Apk:
    kind, header_bytes, _ = _CHUNK.unpack_from(manifest)
    if kind != _XML:
        raise NotAnApk("its manifest is not Android's binary XML")
    strings: list[str] = []
    elements: dict[str, dict[str, int | str]] = {}
    position = header_bytes
    while position < len(manifest):
        kind, _, size_bytes = _CHUNK.unpack_from(manifest, position)
        chunk = manifest[position : position + size_bytes]
        if kind == _STRING_POOL:
            strings = _strings(chunk)
        elif kind == _START_ELEMENT:
            elements.setdefault(strings[_ELEMENT.unpack_from(chunk)[6]], _attributes(chunk, strings))
        position += max(size_bytes, _CHUNK.size)
    if not elements:
        raise NotAnApk("its manifest is empty")
    top, application = next(iter(elements.values())), elements.get("application", {})
    package, split = top.get("package"), top.get("split")
    if not isinstance(package, str):
        raise NotAnApk("its manifest names no package")
    return Apk(
        package,
        int(top.get("versionCode", 1)),
        str(split) if split else None,
        test_only=bool(application.get("testOnly")),
        split_required=bool(application.get("isSplitRequired") or top.get("isSplitRequired")),
        signer=signer,
    )


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


def _attributes(chunk: bytes, strings: list[str]) -> dict[str, int | str]:
    """An element's attributes: text, or the number that stands for any other value."""
    element = _ELEMENT.unpack_from(chunk)
    extension, start, size_bytes, count = 16, element[7], element[8], element[9]
    found: dict[str, int | str] = {}
    for place in range(count):
        _, key, raw, _, _, kind, data = _ATTRIBUTE.unpack_from(chunk, extension + start + place * size_bytes)
        if kind == _STRING_TYPE or raw != _NONE:
            found[strings[key]] = strings[data if kind == _STRING_TYPE else raw]
        else:
            found[strings[key]] = data
    return found


def _manifest(apk: Apk) -> bytes:
    top: dict[str, int | str] = {"package": apk.package, "versionCode": apk.version_code}
    if apk.split is not None:
        top["split"] = apk.split
    application: dict[str, int | str] = {"testOnly": apk.test_only, "isSplitRequired": apk.split_required}
    strings = ["manifest", "application", *top, *application]
    strings += [value for value in top.values() if isinstance(value, str)]
    texts = b"".join(struct.pack("<H", len(text)) + text.encode("utf-16-le") + b"\0\0" for text in strings)
    offsets, position = [], 0
    for text in strings:
        offsets.append(position)
        position += 2 * len(text) + 4
    texts += b"\0" * (-len(texts) % 4)
    start = _POOL.size + 4 * len(offsets)
    header = _POOL.pack(_STRING_POOL, _POOL.size, start + len(texts), len(strings), 0, 0, start, 0)
    pool = header + struct.pack(f"<{len(offsets)}I", *offsets) + texts
    body = pool + _element("manifest", top, strings) + _element("application", application, strings)
    return _CHUNK.pack(_XML, _CHUNK.size, _CHUNK.size + len(body)) + body


def _element(name: str, attributes: dict[str, int | str], strings: list[str]) -> bytes:
    packed = b""
    for key, value in attributes.items():
        if isinstance(value, str):
            place = strings.index(value)
            packed += _ATTRIBUTE.pack(_NONE, strings.index(key), place, 8, 0, _STRING_TYPE, place)
        else:
            kind = _BOOLEAN_TYPE if isinstance(value, bool) else _INT_TYPE
            data = (_NONE if value else 0) if isinstance(value, bool) else value
            packed += _ATTRIBUTE.pack(_NONE, strings.index(key), _NONE, 8, 0, kind, data)
    return (
        _ELEMENT.pack(
            _START_ELEMENT, 16, _ELEMENT.size + len(packed), 1, _NONE, _NONE, strings.index(name), 20, _ATTRIBUTE.size,
            len(attributes), 0, 0, 0,
        )
        + packed
    )  # fmt: skip
