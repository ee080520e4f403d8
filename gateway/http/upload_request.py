"""Reads what a request says about an upload: offset, completeness, length, media type, file name and digest.

Source: the IETF draft "Resumable Uploads for HTTP" (draft-ietf-httpbis-resumable-upload) and RFC 9530 (digest fields).
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from gateway.http.problems import Problem, ProblemType, invalid
from gateway.http.request import refuse_encoded

ANY_TYPE = "application/octet-stream"
PARTIAL = "application/partial-upload"
"""The media type of a PATCH, which is a part of what the POST has named."""

_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}")
_FORM = "application/x-www-form-urlencoded"
"""What curl says of any body unless it is told."""
_ACTIVE = re.compile(r"text/(?!plain$|csv$)|.*(?:html|xml|svg|script)")
"""What a browser might run: it is kept and given back as bytes without a type."""
_WHOLE = re.compile(r"[0-9]{1,15}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_DIGEST = re.compile(r"(?:^|,)\s*sha-256=:?([A-Za-z0-9+/]{43}=):?\s*(?:,|;|$)", re.IGNORECASE)
_MAX_NAME_BYTES = 255
_NOT_IN_NAMES = frozenset("/\\\ufffd")


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What one request says about an upload."""

    media_type: str
    resumable: bool
    """Whether the client knows how to go on after an interruption."""
    complete: bool
    """Whether the last byte of this body is the last of the whole."""
    offset: int | None
    """Place of this body's first byte; None when it is not said."""
    size_bytes: int | None
    """Of the whole, as far as it is known."""
    body_bytes: int | None
    """Of this body; None when it comes in chunks."""
    sha256: str | None
    """Of the whole, lower-case hex, as declared."""
    file_name: str | None

    @property
    def least_bytes(self) -> int:
        """What the whole has at the least, by what was said."""
        return max(self.size_bytes or 0, (self.offset or 0) + (self.body_bytes or 0))


def read_upload(headers: Mapping[bytes, bytes], query: bytes, *, partial: bool) -> UploadRequest:
    """Check a request's headers and query.

    Args:
        headers: Names in lower case.
        query: The raw query string.
        partial: Whether it appends to an upload (PATCH), rather than beginning one.

    Raises:
        Problem: One of them breaks its rule; it is named.
    """
    asked = dict(parse_qsl(query.decode(errors="replace"), keep_blank_values=True))
    complete = _boolean(headers, "Upload-Complete")
    offset = _number(headers, "Upload-Offset")
    length = _number(headers, "Upload-Length")
    body_bytes = _number(headers, "Content-Length")
    if partial and offset is None:
        raise invalid("Upload-Offset", "is required: the place of the body's first byte")
    last = complete if complete is not None else not partial
    size_bytes = length
    if last and body_bytes is not None:
        end = (offset or 0) + body_bytes
        if length is not None and length != end:
            raise invalid("Upload-Length", f"is {length}, but the last byte of this body ends at {end}")
        size_bytes = end
    return UploadRequest(
        media_type=_media_type(headers, partial=partial),
        resumable=complete is not None or partial,
        complete=last,
        offset=offset,
        size_bytes=size_bytes,
        body_bytes=body_bytes,
        sha256=_declared(headers, asked.get("sha256"), whole=last and not offset),
        file_name=_file_name(asked.get("file_name")),
    )


def _media_type(headers: Mapping[bytes, bytes], *, partial: bool) -> str:
    given = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if given.startswith("multipart/"):
        sentence = "Send the file itself as the body, not a form: `curl -T app.apk`, or `--data-binary @app.apk`."
        raise Problem(ProblemType.MEDIA_TYPE, sentence)
    refuse_encoded(dict(headers))
    if partial:
        if given != PARTIAL:
            raise Problem(ProblemType.MEDIA_TYPE, f"Send the part with Content-Type: {PARTIAL}.")
        return ANY_TYPE
    if not given or given == _FORM:
        return ANY_TYPE
    if not _TYPE.fullmatch(given):
        raise invalid("Content-Type", "must be a media type, such as application/vnd.android.package-archive")
    return ANY_TYPE if _ACTIVE.match(given) else given


def _declared(headers: Mapping[bytes, bytes], asked: str | None, *, whole: bool) -> str | None:
    """The SHA-256 that the client says the whole has."""
    if asked is not None:
        if not _SHA256.fullmatch(asked):
            raise invalid("sha256", "must be 64 hexadecimal digits")
        return asked.lower()
    for name in ("Repr-Digest", "Digest", *(["Content-Digest"] if whole else [])):
        value = headers.get(name.lower().encode())
        if value is None:
            continue
        match = _DIGEST.search(value.decode("latin-1"))
        if match is None:
            raise invalid(name, "must have sha-256, such as `sha-256=:BASE64:` (RFC 9530)")
        try:
            return b64decode(match[1], validate=True).hex()
        except binascii.Error:
            raise invalid(name, "is no base64") from None
    return None


def _file_name(name: str | None) -> str | None:
    if name is None:
        return None
    if not name or len(name.encode()) > _MAX_NAME_BYTES or not name.isprintable() or set(name) & _NOT_IN_NAMES:
        raise invalid("file_name", f"must be a name without folders, at most {_MAX_NAME_BYTES} bytes of UTF-8")
    return name


def _boolean(headers: Mapping[bytes, bytes], name: str) -> bool | None:
    value = headers.get(name.lower().encode())
    if value is None:
        return None
    if value.strip() not in (b"?0", b"?1"):
        raise invalid(name, "must be ?1 (true) or ?0 (false)")
    return value.strip() == b"?1"


def _number(headers: Mapping[bytes, bytes], name: str) -> int | None:
    value = headers.get(name.lower().encode())
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if not _WHOLE.fullmatch(text):
        raise invalid(name, "must be a whole number of bytes")
    return int(text)
