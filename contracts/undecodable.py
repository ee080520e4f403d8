"""Keeps a message whose properties cannot be decoded from ending the connection that it came on.

AMQP's strings are bytes to RabbitMQ, which passes on a `message_id` that is no UTF-8, a timestamp beyond the year 9999
or a header table nested a thousand deep. pamqp raises on them in the middle of a connection's reader, the connection
ends, the broker delivers the message again on the next one, and so one message would stop a whole pool for ever.
"""

from functools import wraps
from typing import Any

from pamqp import commands as spec
from pamqp.header import ContentHeader

UNDECODABLE = "x-undecodable"
"""Header that stands for properties nobody could read: the kind of error. Whoever reads an envelope refuses it."""


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
            self.properties = spec.Basic.Properties(headers={UNDECODABLE: type(error).__name__})

    ContentHeader.unmarshal = unmarshal  # type: ignore[method-assign]  # aiormq offers no place for a decoder of one's own
