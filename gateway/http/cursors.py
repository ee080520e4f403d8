"""Cursors of lists: opaque to clients, a position inside an index to us."""

import binascii
from base64 import b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from struct import Struct, error
from uuid import UUID

from gateway.http.problems import invalid

_POSITION = Struct(">q16sh")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode_cursor(at: datetime, id_: UUID, position: int = 0) -> str:
    """Name the place after one row.

    Args:
        at: The row's time.
        id_: Its id.
        position: What tells rows of one id apart.
    """
    packed = _POSITION.pack((at - _EPOCH) // _MICROSECOND, id_.bytes, position)
    return urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> tuple[datetime, UUID, int]:
    """The place that a cursor names.

    Args:
        cursor: From `encode_cursor`, by way of a client.

    Raises:
        Problem: It was not made here.
    """
    try:
        packed = b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        microseconds, id_, position = _POSITION.unpack(packed)
        return _EPOCH + timedelta(microseconds=microseconds), UUID(bytes=id_), position
    except (ValueError, binascii.Error, error, OverflowError):
        raise invalid("cursor", "must be a next_cursor of this list") from None
