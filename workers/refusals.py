"""The answer to a message that cannot become a command: a `failed` result in its publisher's own reply queue.

Whose queue that is, the broker has checked (`user_id`): without it nobody is answered. There is no row behind such an
answer. It is published before the message is acked, so that a crash between the two makes another, never none.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from contracts.commands import KINDS, VERSION, Kind
from contracts.envelope import ReceivedProperties, Refused
from contracts.frames import Properties
from contracts.publisher import Outgoing
from contracts.results import State
from contracts.topology import REPLIES, owns_reply_queue, reply_queue

_KIND = re.compile(r"^(?P<kind>[a-z][a-z0-9_.]*?)(\.v\d+)?$")
UNKNOWN_KIND = "unknown"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Whom to tell, and what."""

    reply_to: str
    message_id: str
    """As it came; empty when none did."""
    correlation_id: str | None
    kind: Kind | None
    """What its type or else its routing key says; None when neither says it."""
    code: str
    sentence: str


def refusal_of(properties: ReceivedProperties, refused: Refused, *, routing_key: str) -> Refusal | None:
    """Whom to tell of a refused message; None when it asks for no answer, or nobody knows who published it.

    Args:
        properties: As received.
        refused: Why.
        routing_key: Its key on `ish.commands`.
    """
    if not refused.publisher or not properties.reply_to:
        return None
    own = owns_reply_queue(refused.publisher, properties.reply_to) and "\x00" not in properties.reply_to
    return Refusal(
        reply_to=properties.reply_to if own else reply_queue(refused.publisher),
        message_id=properties.message_id or "",
        correlation_id=properties.correlation_id,
        kind=_kind(properties.message_type or "", routing_key),
        code=refused.code.value,
        sentence=refused.message,
    )


def refusal_message(refusal: Refusal, *, user: str, worker: str | None = None) -> Outgoing:
    """The message that tells of a refusal.

    Args:
        refusal: From `refusal_of`.
        user: This process's own RabbitMQ user.
        worker: Who refused it.
    """
    now = datetime.now(UTC)
    document: dict[str, Any] = {
        "command_id": _uuid(refusal.message_id),
        "kind": refusal.kind.name if refusal.kind else UNKNOWN_KIND,
        "status": State.FAILED.value,
        "error": {"code": refusal.code, "message": refusal.sentence, "retryable": False},
        "attempts": 0,
        "accepted_at": now,
        "started_at": None,
        "finished_at": now,
        "worker": worker,
    }
    properties = Properties(
        message_id=refusal.message_id,
        type=refusal.kind.result_type if refusal.kind else f"result.v{VERSION}",
        user_id=user,
        app_id="ish-chat",
        correlation_id=refusal.correlation_id,
    )
    return Outgoing(REPLIES, refusal.reply_to, properties, orjson.dumps(document, option=orjson.OPT_UTC_Z))


def _kind(message_type: str, routing_key: str) -> Kind | None:
    match = _KIND.fullmatch(message_type)
    if match is not None and match["kind"] in KINDS:
        return KINDS[match["kind"]]
    return next((kind for kind in KINDS.values() if f"{routing_key}.".startswith(f"{kind.name}.")), None)


def _uuid(message_id: str) -> str | None:
    try:
        return str(UUID(message_id))
    except ValueError:
        return None
