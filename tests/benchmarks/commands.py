"""Commands as the outside publisher `demo` sends them."""

from datetime import UTC, datetime
from uuid import uuid4

from contracts.amqp.frames import Properties
from contracts.amqp.publisher import Outgoing
from contracts.commands import KIND_AI, KIND_ANDROID, KIND_RELAY, KINDS
from contracts.topology import AI, AI_BATCH, COMMANDS, RELAY, ROUTING_KEYS, device_key, reply_queue

PUBLISHER = "demo"
REPLIES = reply_queue(PUBLISHER)


def relay_command(body: bytes) -> Outgoing:
    """A relay command with a new id, asking for a reply.

    Args:
        body: Its payload.
    """
    return _command(KIND_RELAY, ROUTING_KEYS[RELAY], body)


def ai_command(body: bytes, *, batch: bool = False) -> Outgoing:
    """A question to a model with a new id.

    Args:
        body: Its payload.
        batch: Send it to the queue of batch work, and ask for no reply.
    """
    return _command(KIND_AI, ROUTING_KEYS[AI_BATCH if batch else AI], body, reply_to=None if batch else REPLIES)


def phone_command(serial: str, body: bytes, *, replied: bool = True) -> Outgoing:
    """An action on a phone with a new id.

    Args:
        serial: The phone.
        body: Its payload.
        replied: Whether it asks for a reply.
    """
    return _command(KIND_ANDROID, device_key(serial), body, reply_to=REPLIES if replied else None)


def _command(kind: str, routing_key: str, body: bytes, *, reply_to: str | None = REPLIES) -> Outgoing:
    properties = Properties(
        message_id=str(uuid4()),
        type=KINDS[kind].type,
        user_id=PUBLISHER,
        reply_to=reply_to,
        timestamp=int(datetime.now(UTC).timestamp()),
    )
    return Outgoing(COMMANDS, routing_key, properties, body)
