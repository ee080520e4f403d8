"""Keeps a message whose properties cannot be decoded from ending the connection that it came on.

AMQP's strings are bytes to RabbitMQ, which passes on a `message_id` that is no UTF-8, a timestamp beyond the year 9999
or a header table nested a thousand deep. pamqp raises on them in the middle of a connection's reader, the connection
ends, the broker delivers the message again on the next one, and so one message would stop a whole pool for ever.
"""

from contextlib import suppress
from functools import wraps
from typing import Any

from pamqp import commands as spec
from pamqp.header import ContentHeader

UNDECODABLE = "x-undecodable"
"""Header that stands for properties nobody could read: the kind of error. Whoever reads an envelope refuses it."""


_SHORT_STRING, _TABLE, _OCTET, _TIMESTAMP = range(4)
_FIELDS = (
    ("content_type", _SHORT_STRING),
    ("content_encoding", _SHORT_STRING),
    ("headers", _TABLE),
    ("delivery_mode", _OCTET),
    ("priority", _OCTET),
    ("correlation_id", _SHORT_STRING),
    ("reply_to", _SHORT_STRING),
    ("expiration", _SHORT_STRING),
    ("message_id", _SHORT_STRING),
    ("timestamp", _TIMESTAMP),
    ("message_type", _SHORT_STRING),
    ("user_id", _SHORT_STRING),
    ("app_id", _SHORT_STRING),
)
"""In the order in which they stand on the wire; the first has the highest bit."""
_FLAGS_AT = 12


def readable(data: bytes) -> dict[str, str]:
    """Those of a message's strings that can be read, whatever is wrong with the others.

    Args:
        data: A content header as it came: class, weight, size, flags, then the properties that the flags name.
    """
    found: dict[str, str] = {}
    flags = int.from_bytes(data[_FLAGS_AT : _FLAGS_AT + 2], "big")
    at = _FLAGS_AT + 2
    for position, (name, kind) in enumerate(_FIELDS):
        if not flags & 1 << 15 - position:
            continue
        if kind == _SHORT_STRING:
            text = data[at + 1 : at + 1 + data[at]] if at < len(data) else b""
            at += 1 + len(text)
            with suppress(UnicodeDecodeError):
                found[name] = text.decode()
        else:
            at += {_TABLE: 4 + int.from_bytes(data[at : at + 4], "big"), _OCTET: 1, _TIMESTAMP: 8}[kind]
    return found


def tolerate_undecodable() -> None:
    """Let pamqp give empty properties with the header `UNDECODABLE` where it would raise; once is enough."""
    decode = ContentHeader.unmarshal
    if hasattr(decode, "__wrapped__"):
        return

    @wraps(decode)
    def unmarshal(self: Any, data: bytes) -> None:
        try:
            decode(self, data)
        except (ValueError, ArithmeticError, LookupError, RecursionError, OSError) as error:
            if self.class_id is None:
                raise  # not even its size could be read: that is no message
            strings: dict[str, Any] = {**readable(data)}
            self.properties = spec.Basic.Properties(headers={UNDECODABLE: type(error).__name__}, **strings)

    ContentHeader.unmarshal = unmarshal  # type: ignore[method-assign]  # aiormq offers no place for a decoder of one's own
