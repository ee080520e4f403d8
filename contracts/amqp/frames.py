"""Encodes one AMQP 0-9-1 publish (method, header and body frames) straight to bytes.

A general marshaller spends most of a publish's time on tables of types; a command has a dozen fixed properties, so its
frames are written here by hand. Source: the AMQP 0-9-1 specification, 2.3.5 and 4.2, and RabbitMQ's field-table types.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct

_FRAME = Struct(">BHI")
_HEADER = Struct(">HHQH")
_LONG = Struct(">q")
_UNSIGNED_LONG = Struct(">Q")
_UNSIGNED = Struct(">I")
_PUBLISH_METHOD = b"\x00\x3c\x00\x28\x00\x00"  # class 60, method 40, a reserved short
_BASIC_CLASS = 60
_END = b"\xce"
_FRAME_OVERHEAD = 8
_SHORT_STRING_MAX = 255

_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 13, 1 << 12
_CORRELATION_ID, _REPLY_TO, _MESSAGE_ID = 1 << 10, 1 << 9, 1 << 7
_TIMESTAMP, _TYPE, _USER_ID, _APP_ID = 1 << 6, 1 << 5, 1 << 4, 1 << 3

HeaderValue = str | int | bool


@dataclass(frozen=True, slots=True)
class Properties:
    """The AMQP properties that we set; content type (JSON) and delivery mode (persistent) are always the same."""

    message_id: str
    type: str
    user_id: str | None = None
    app_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    timestamp: int | None = None
    """Seconds since the epoch, as AMQP has it."""
    headers: dict[str, HeaderValue] = field(default_factory=dict)


def encode_publish(
    channel: int,
    exchange: str,
    routing_key: str,
    properties: Properties,
    body: bytes,
    *,
    mandatory: bool,
    frame_max: int,
) -> bytes:
    """Encode one publish.

    Args:
        channel: Channel number.
        exchange: Exchange name, at most 255 bytes.
        routing_key: Routing key, at most 255 bytes.
        properties: See `Properties`; each string at most 255 bytes.
        body: The payload; split into frames of at most `frame_max` bytes. An empty one has no body frame.
        mandatory: Whether an unroutable message is returned.
        frame_max: What the connection negotiated, in bytes; 0 means no limit.

    Raises:
        ValueError: A name or property is longer than 255 bytes.
    """
    method = _publish_method(exchange, routing_key, mandatory)
    header = _content_header(properties, len(body))
    parts = [
        _FRAME.pack(1, channel, len(method)), method, _END,
        _FRAME.pack(2, channel, len(header)), header, _END,
    ]  # fmt: skip
    piece_max = frame_max - _FRAME_OVERHEAD if frame_max else len(body)
    if len(body) <= piece_max:
        if body:
            parts += (_FRAME.pack(3, channel, len(body)), body, _END)
    else:
        for start in range(0, len(body), piece_max):
            piece = body[start : start + piece_max]
            parts += (_FRAME.pack(3, channel, len(piece)), piece, _END)
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _publish_method(exchange: str, routing_key: str, mandatory: bool) -> bytes:  # noqa: FBT001  # the cache wants positions
    return b"".join((_PUBLISH_METHOD, _short(exchange), _short(routing_key), b"\x01" if mandatory else b"\x00"))


def _content_header(properties: Properties, body_size: int) -> bytes:
    flags = _CONTENT_TYPE | _HEADERS | _DELIVERY_MODE | _MESSAGE_ID | _TYPE
    parts = [b"\x10application/json", _table(properties.headers), b"\x02"]
    if properties.correlation_id is not None:
        flags |= _CORRELATION_ID
        parts.append(_short(properties.correlation_id))
    if properties.reply_to is not None:
        flags |= _REPLY_TO
        parts.append(_short(properties.reply_to))
    parts.append(_short(properties.message_id))
    if properties.timestamp is not None:
        flags |= _TIMESTAMP
        parts.append(_UNSIGNED_LONG.pack(properties.timestamp))
    parts.append(_short(properties.type))
    if properties.user_id is not None:
        flags |= _USER_ID
        parts.append(_short(properties.user_id))
    if properties.app_id is not None:
        flags |= _APP_ID
        parts.append(_short(properties.app_id))
    return _HEADER.pack(_BASIC_CLASS, 0, body_size, flags) + b"".join(parts)


def _table(headers: dict[str, HeaderValue]) -> bytes:
    parts: list[bytes] = []
    for name, value in headers.items():
        parts.append(_short(name))
        if isinstance(value, bool):
            parts.append(b"t\x01" if value else b"t\x00")
        elif isinstance(value, int):
            parts += (b"l", _LONG.pack(value))
        else:
            text = value.encode()
            parts += (b"S", _UNSIGNED.pack(len(text)), text)
    table = b"".join(parts)
    return _UNSIGNED.pack(len(table)) + table


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > _SHORT_STRING_MAX:
        raise ValueError(f"longer than {_SHORT_STRING_MAX} bytes: {text[:40]}…")
    return bytes((len(data),)) + data
