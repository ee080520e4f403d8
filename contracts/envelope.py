"""The envelope of a command: AMQP properties and headers on one side, checked fields on the other.

`message_id` with the publisher is the identity everywhere. Which headers are believed depends on who the broker says
published (`user_id`): `x-publisher`, `x-owner` and `x-attempt` count only from our own roles.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from contracts.amqp.frames import HeaderValue, Properties
from contracts.amqp.undecodable import UNDECODABLE
from contracts.commands import KINDS, VERSION, Kind
from contracts.errors import ErrorCode, Permanent
from contracts.topology import OWN_USERS, owns_reply_queue

X_OWNER, X_PUBLISHER, X_ATTEMPT = "x-owner", "x-publisher", "x-attempt"
X_CREATED_MS, X_DEADLINE_MS, X_NOT_BEFORE_MS = "x-created-ms", "x-deadline-ms", "x-not-before-ms"
X_PRIORITY, X_REPLAY_OF, TRACEPARENT = "x-priority", "x-replay-of", "traceparent"
DELIVERY_COUNT = "x-delivery-count"
ROUTING_HEADERS = ("CC", "BCC")
"""Further routing keys of a message, by RabbitMQ's sender-selected distribution; older brokers do not check them."""

PRIORITIES = ("interactive", "batch")
MAX_DEADLINE = timedelta(days=7)
_TYPE = re.compile(r"^(?P<kind>[a-z][a-z0-9_.]*)\.v(?P<version>\d{1,3})$")
_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


class ReceivedProperties(Protocol):
    """A delivery's properties as pamqp reads them off the wire."""

    message_id: str | None
    message_type: str | None
    correlation_id: str | None
    reply_to: str | None
    user_id: str | None
    timestamp: Any
    headers: Any


@dataclass(frozen=True, slots=True)
class Envelope:
    """Everything about a command but its payload."""

    publisher: str
    id: UUID
    kind: Kind
    owner: str
    accepted_at: datetime
    deadline_at: datetime
    correlation_id: str | None = None
    reply_to: str | None = None
    traceparent: str | None = None
    priority: str | None = None
    attempt: int = 1
    """What the message says; the count that decides is the database's."""
    not_before: datetime | None = None
    replay_of: UUID | None = None
    delivery_count: int = 0
    """Times the broker has given it back after a crash; 0 for a first delivery."""


class Refused(Permanent):
    """A message that cannot become a command; what could be read of it is kept for the dead letter."""

    def __init__(
        self, code: ErrorCode, message: str, *, publisher: str | None = None, message_id: str | None = None
    ) -> None:
        super().__init__(code, message)
        self.publisher = publisher
        self.message_id = message_id


def read_envelope(properties: ReceivedProperties, *, default_deadline: timedelta, now: datetime) -> Envelope:
    """Check a delivery's properties.

    Args:
        properties: As received.
        default_deadline: For a command that names none, from its acceptance.
        now: The current time, aware.

    Raises:
        Refused: With the reason, and with publisher and id where they could be read.
    """
    headers: Mapping[str, Any] = properties.headers or {}
    user, message_id = properties.user_id, properties.message_id
    if UNDECODABLE in headers:
        raise Refused(
            ErrorCode.INVALID_HEADER,
            f"its AMQP properties cannot be decoded ({headers[UNDECODABLE]!s:.64})",
            # of our own users nobody knows for whom they published
            publisher=None if user in OWN_USERS else user,
            message_id=message_id,
        )
    if not user:
        raise Refused(
            ErrorCode.NO_USER_ID,
            "the user_id property is missing: set it to the publishing user",
            message_id=message_id,
        )
    trusted = user in OWN_USERS
    publisher = _text(headers, X_PUBLISHER) or user if trusted else user

    def refuse(code: ErrorCode, sentence: str) -> Refused:
        return Refused(code, sentence, publisher=publisher, message_id=message_id)

    _refuse_routing_headers(headers, refuse)
    if not message_id:
        raise refuse(ErrorCode.NO_MESSAGE_ID, "the message_id property is missing: it is the command's UUID")
    identity = _uuid(message_id)
    if identity is None:
        raise refuse(ErrorCode.BAD_MESSAGE_ID, f"message_id must be a UUID, not {message_id[:64]!r}")
    kind = _kind(properties.message_type, refuse)
    if properties.reply_to and not owns_reply_queue(publisher, properties.reply_to):
        raise refuse(
            ErrorCode.FOREIGN_REPLY_TO, f"reply_to must be reply.{publisher}, not {properties.reply_to[:64]!r}"
        )
    _check_storable(properties, refuse)
    accepted_at = min(_time(headers, X_CREATED_MS, refuse) or _timestamp(properties.timestamp) or now, now)
    deadline_at = _time(headers, X_DEADLINE_MS, refuse) or accepted_at + default_deadline
    if deadline_at > now + MAX_DEADLINE:
        raise refuse(ErrorCode.INVALID_HEADER, f"{X_DEADLINE_MS} is more than {MAX_DEADLINE.days} days ahead")
    priority = headers.get(X_PRIORITY)
    if priority is not None and priority not in PRIORITIES:
        raise refuse(ErrorCode.INVALID_HEADER, f"{X_PRIORITY} must be one of {', '.join(PRIORITIES)}")
    traceparent = _text(headers, TRACEPARENT)
    return Envelope(
        publisher=publisher,
        id=identity,
        kind=kind,
        owner=(_text(headers, X_OWNER) or publisher) if trusted else publisher,
        accepted_at=accepted_at,
        deadline_at=deadline_at,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        traceparent=traceparent if traceparent and _TRACEPARENT.match(traceparent) else None,
        priority=priority,
        attempt=_integer(headers, X_ATTEMPT, refuse) or 1 if trusted else 1,
        not_before=_time(headers, X_NOT_BEFORE_MS, refuse) if trusted else None,
        replay_of=_uuid(str(headers.get(X_REPLAY_OF))) if trusted and X_REPLAY_OF in headers else None,
        delivery_count=_integer(headers, DELIVERY_COUNT, refuse) or 0,
    )


def write_envelope(envelope: Envelope, *, user: str) -> Properties:
    """The AMQP properties of a command published by one of our own roles.

    Nothing of an earlier delivery is carried over (`x-death`, delivery counts): the broker drops what looks like a cycle.

    Args:
        envelope: The command's envelope.
        user: This process's own RabbitMQ user; the broker checks it against the connection.
    """
    headers: dict[str, HeaderValue] = {
        X_OWNER: envelope.owner,
        X_PUBLISHER: envelope.publisher,
        X_CREATED_MS: milliseconds(envelope.accepted_at),
        X_DEADLINE_MS: milliseconds(envelope.deadline_at),
        X_ATTEMPT: envelope.attempt,
    }
    if envelope.not_before is not None:
        headers[X_NOT_BEFORE_MS] = milliseconds(envelope.not_before)
    if envelope.traceparent is not None:
        headers[TRACEPARENT] = envelope.traceparent
    if envelope.priority is not None:
        headers[X_PRIORITY] = envelope.priority
    if envelope.replay_of is not None:
        headers[X_REPLAY_OF] = str(envelope.replay_of)
    return Properties(
        message_id=str(envelope.id),
        type=envelope.kind.type,
        user_id=user,
        app_id="ish-chat",
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        timestamp=int(envelope.accepted_at.timestamp()),
        headers=headers,
    )


def waiting(envelope: Envelope, *, not_before: datetime, attempt: int) -> Envelope:
    """The same command, to be run no sooner than a given time.

    Args:
        envelope: The command's envelope.
        not_before: When it is due.
        attempt: The run that comes next.
    """
    return replace(envelope, not_before=not_before, attempt=attempt)


def milliseconds(moment: datetime) -> int:
    """Milliseconds since the epoch, as the headers carry times.

    Args:
        moment: An aware time.
    """
    return int(moment.timestamp() * 1000)


class _Refuse(Protocol):
    def __call__(self, code: ErrorCode, sentence: str, /) -> Refused: ...


def _kind(message_type: str | None, refuse: _Refuse) -> Kind:
    match = _TYPE.match(message_type or "")
    known = ", ".join(kind.type for kind in KINDS.values())
    if match is None or match["kind"] not in KINDS:
        raise refuse(ErrorCode.UNKNOWN_TYPE, f"type must be one of {known}, not {(message_type or '')[:64]!r}")
    if int(match["version"]) != VERSION:
        raise refuse(ErrorCode.UNKNOWN_VERSION, f"type must be one of {known}, not {message_type!r}")
    return KINDS[match["kind"]]


def _refuse_routing_headers(headers: Mapping[str, Any], refuse: _Refuse) -> None:
    for name in ROUTING_HEADERS:
        if name in headers:
            raise refuse(
                ErrorCode.INVALID_HEADER, f"{name} is not taken: publish one message with the routing key of its kind"
            )


def _check_storable(properties: ReceivedProperties, refuse: _Refuse) -> None:
    """PostgreSQL stores no NUL, so a command whose properties hold one could be taken and then never recorded."""
    for name, value in (("correlation_id", properties.correlation_id), ("reply_to", properties.reply_to)):
        if value and "\x00" in value:
            raise refuse(ErrorCode.INVALID_HEADER, f"{name} must not contain the NUL character (U+0000)")


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _text(headers: Mapping[str, Any], name: str) -> str | None:
    value = headers.get(name)
    return value if isinstance(value, str) and value else None


def _integer(headers: Mapping[str, Any], name: str, refuse: _Refuse) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise refuse(ErrorCode.INVALID_HEADER, f"{name} must be a whole number, at least 0")
    return value


def _time(headers: Mapping[str, Any], name: str, refuse: _Refuse) -> datetime | None:
    value = _integer(headers, name, refuse)
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(value / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        raise refuse(ErrorCode.INVALID_HEADER, f"{name} must be milliseconds since the epoch") from None


def _timestamp(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None
