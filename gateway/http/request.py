"""Reads what every request may carry: the wait asked for, idempotency key, deadline, priority, trace; and its body."""

import re
from dataclasses import dataclass
from random import getrandbits
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from contracts.envelope import MAX_DEADLINE, PRIORITIES
from gateway.http.problems import Problem, ProblemType, invalid

MAX_WAIT_SECONDS = 60
_MEDIA_TYPES = (b"application/json", b"application/x-www-form-urlencoded")
"""The second is what `curl -d` says of any body; the body must be JSON all the same."""
_WAIT_RULE = f"must be a whole number of seconds, 0 to {MAX_WAIT_SECONDS}"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")
_DIGITS = re.compile(r"[0-9]{1,9}")
_DEADLINE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_PREFER_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([^\",;\s]*)", re.IGNORECASE)


class Disconnected(Exception):
    """The client went away before its request was complete; there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a POST asks for beside its body."""

    wait_seconds: int
    idempotency_key: str | None
    deadline_seconds: float | None
    priority: str | None
    traceparent: str | None


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """A request's headers, names in lower case; of a repeated one the last.

    Args:
        scope: The ASGI scope.
    """
    known: dict[bytes, bytes] | None = scope.get("ish.headers")
    if known is None:
        known = scope["ish.headers"] = dict(scope["headers"])
    return known


def request_id_of(scope: Scope) -> str:
    """The client's X-Request-Id when it is a sane one, else a new one; the same each time it is asked.

    Args:
        scope: The ASGI scope.
    """
    known: str | None = scope.get("ish.request_id")
    if known is None:
        given = headers_of(scope).get(b"x-request-id", b"").decode("latin-1")
        known = given if _REQUEST_ID.fullmatch(given) else f"{getrandbits(96):024x}"
        scope["ish.request_id"] = known
    return known


def read_asked(headers: dict[bytes, bytes], query: bytes) -> Asked:
    """Check a POST's headers and query.

    Args:
        headers: As `headers_of` gives them.
        query: The raw query string.

    Raises:
        Problem: One of them breaks its rule; it is named.
    """
    content_type = headers.get(b"content-type")
    if content_type is not None and not content_type.lower().startswith(_MEDIA_TYPES):
        raise Problem(ProblemType.MEDIA_TYPE, "Send the body with Content-Type: application/json.")
    key = _text(headers, b"idempotency-key")
    if key is not None and not _VISIBLE.fullmatch(key):
        raise invalid("Idempotency-Key", "must be 1 to 255 visible ASCII characters")
    priority = _text(headers, b"ish-priority")
    if priority is not None and priority not in PRIORITIES:
        raise invalid("Ish-Priority", f"must be one of {', '.join(PRIORITIES)}")
    traceparent = _text(headers, b"traceparent")
    return Asked(
        wait_seconds=wait_seconds(headers, query),
        idempotency_key=key,
        deadline_seconds=_deadline_seconds(_text(headers, b"ish-deadline-seconds")),
        priority=priority,
        traceparent=traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None,
    )


def refuse_encoded(headers: dict[bytes, bytes]) -> None:
    """Refuse a body that is compressed, or otherwise not the bytes that are meant.

    Args:
        headers: As `headers_of` gives them.

    Raises:
        Problem: It is.
    """
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in {b"", b"identity"}:
        raise Problem(
            ProblemType.CONTENT_ENCODING,
            "Send it without Content-Encoding, as it is.",
            headers={"Accept-Encoding": "identity"},
        )


def wait_seconds(headers: dict[bytes, bytes], query: bytes) -> int:
    """How long the client would wait for the result: `?wait=N`, else `Prefer: wait=N` (RFC 7240), else 0.

    Args:
        headers: As `headers_of` gives them.
        query: The raw query string.

    Raises:
        Problem: It is no whole number, or above the limit.
    """
    asked: str | None = None
    field = "wait"
    if query:
        given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        asked = next((value for name, value in given if name == "wait"), None)
    if asked is None and b"prefer" in headers:
        match = _PREFER_WAIT.search(headers[b"prefer"].decode("latin-1"))
        asked, field = (match[1], "Prefer") if match else (None, field)
    if asked is None:
        return 0
    if not _DIGITS.fullmatch(asked) or int(asked) > MAX_WAIT_SECONDS:
        raise invalid(field, _WAIT_RULE)
    return int(asked)


async def read_body(receive: Receive, headers: dict[bytes, bytes], *, limit_bytes: int) -> bytes:
    """Read a body, also a chunked one, no further than the limit.

    Args:
        receive: ASGI's.
        headers: As `headers_of` gives them.
        limit_bytes: The most that is read.

    Raises:
        Problem: It is larger, or says so.
        Disconnected: The client went away.
    """
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > limit_bytes:
        raise _too_large(limit_bytes)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body"):
            return b"".join((*parts, part)) if parts else part
        parts.append(part)


def _too_large(limit_bytes: int) -> Problem:
    # the connection stays open: closing it on a client that is still sending would reset it before it has read this
    return Problem(ProblemType.BODY_TOO_LARGE, f"The limit is {limit_bytes} bytes.")


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _deadline_seconds(text: str | None) -> float | None:
    if text is None:
        return None
    longest = MAX_DEADLINE.total_seconds()
    if not _DEADLINE.fullmatch(text) or not 0 < float(text) <= longest:
        raise invalid("Ish-Deadline-Seconds", f"must be a number of seconds, above 0 and at most {longest:.0f}")
    return float(text)
