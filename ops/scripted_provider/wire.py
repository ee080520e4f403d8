"""What can happen on a connection: bytes, pauses, and the ways in which it can end."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, unique
from http.client import responses

JSON = "application/json"


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


def head(status: int, *, length: int, content_type: str = JSON, headers: dict[str, str] | None = None) -> bytes:
    """An HTTP answer up to its body, of `length` bytes."""
    lines = [
        f"HTTP/1.1 {status} {responses.get(status, 'Scripted')}",
        f"content-type: {content_type}",
        f"content-length: {length}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
