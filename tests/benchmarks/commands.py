"""Commands as the outside publisher `demo` sends them."""

from datetime import UTC, datetime
from uuid import uuid4

from contracts.commands import KIND_RELAY, KINDS
from contracts.frames import Properties
from contracts.publisher import Outgoing
from contracts.topology import COMMANDS, RELAY, ROUTING_KEYS, reply_queue

PUBLISHER = "demo"
REPLIES = reply_queue(PUBLISHER)


def relay_command(body: bytes) -> Outgoing:
    """A relay command with a new id, asking for a reply.

    Args:
        body: Its payload.
    """
    properties = Properties(
        message_id=str(uuid4()),
        type=KINDS[KIND_RELAY].type,
        user_id=PUBLISHER,
        reply_to=REPLIES,
        timestamp=int(datetime.now(UTC).timestamp()),
    )
    return Outgoing(COMMANDS, ROUTING_KEYS[RELAY], properties, body)
