"""What can happen on a connection: bytes, pauses, and the ways in which it can end."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, unique
from http.client import responses

JSON = "application/json"
EVENTS = "text/event-stream"
LAST_CHUNK = b"0\r\n\r\n"


@unique
class Ending(Enum):
    """How an answer leaves its connection; without one it stays open for the next call."""

    STALL = "stall"
    """Say nothing more, and keep it open."""
    RESET = "reset"
    """Tear it down (RST)."""
    CLOSE = "close"
    """Close it in good order, whatever was promised."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Say nothing for a while."""

    seconds: float


Act = bytes | Pause | Ending
Plan = Iterator[Act]
"""What to do, lazily, so that a huge answer takes no memory."""


def http(status: int, body: bytes, *, content_type: str = JSON, headers: dict[str, str] | None = None) -> bytes:
    """One whole HTTP answer."""
    return head(status, length=len(body), content_type=content_type, headers=headers) + body


def head(status: int, *, length: int | None, content_type: str = JSON, headers: dict[str, str] | None = None) -> bytes:
    """An HTTP answer up to its body.

    Args:
        status: The status.
        length: Of the body, in bytes; None means that it comes in chunks.
        content_type: Its media type.
        headers: More of them.
    """
    lines = [
        f"HTTP/1.1 {status} {responses.get(status, 'Scripted')}",
        f"content-type: {content_type}",
        "transfer-encoding: chunked" if length is None else f"content-length: {length}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a body whose length is not said beforehand; of nothing, nothing: an empty chunk would end it."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n" if data else b""
