"""The answer to a message that cannot become a command: a `failed` result in its publisher's own reply queue.

Whose queue that is, the broker has checked (`user_id`): without it nobody is answered. There is no row behind such an
answer. It is published before the message is acked, so that a crash between the two makes another, never none.
"""

import re

from contracts.amqp.messages import Refusal
from contracts.commands import KINDS, Kind
from contracts.envelope import ReceivedProperties, Refused
from contracts.topology import owns_reply_queue, reply_queue

_KIND = re.compile(r"^(?P<kind>[a-z][a-z0-9_.]*?)(\.v\d+)?$")


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


def _kind(message_type: str, routing_key: str) -> Kind | None:
    match = _KIND.fullmatch(message_type)
    if match is not None and match["kind"] in KINDS:
        return KINDS[match["kind"]]
    return next((kind for kind in KINDS.values() if f"{routing_key}.".startswith(f"{kind.name}.")), None)
