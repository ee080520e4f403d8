"""Turns a received message into what PostgreSQL can keep of it: text without NUL, headers as JSON, the body's bytes."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from workers.stages import Delivery
from workers.store.dead_letters import DeadLetter

_MAX_DEPTH = 8
_MAX_CHARACTERS = 2000
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def delivery_of(message: AbstractIncomingMessage, *, routing_key: str) -> Delivery:
    """The message as the worker's own checks want it.

    Args:
        message: As received.
        routing_key: Its key on `ish.commands`.
    """
    return Delivery(
        tag=message.delivery_tag or 0,
        generation=0,
        routing_key=routing_key,
        properties=message.properties,
        body=message.body,
        received_at=asyncio.get_running_loop().time(),
    )


def letter_of(
    message: AbstractIncomingMessage,
    *,
    reason: str,
    sentence: str,
    queue: str,
    routing_key: str,
    publisher: str | None = None,
) -> DeadLetter:
    """A dead letter that can be stored whatever the message carries.

    Args:
        message: As received.
        reason: A wire code.
        sentence: For a person.
        queue: Where it could not go or stay.
        routing_key: Its key on `ish.commands`.
        publisher: Who published it at first; None takes the broker's word for who published it last.
    """
    return DeadLetter(
        reason=reason,
        message=storable(sentence) or reason,
        publisher=storable(publisher if publisher is not None else message.user_id),
        message_id=storable(message.message_id),
        type=storable(message.type),
        queue=storable(queue) or "",
        routing_key=storable(routing_key) or "",
        reply_to=storable(message.reply_to),
        headers=plain_table(message.headers or {}),
        body=message.body,
    )


def storable(value: Any) -> str | None:
    """Text that PostgreSQL takes, or None.

    Args:
        value: A property; a foreign client may have put anything there.
    """
    if value is None:
        return None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)
    text = text.replace("\x00", _REPLACEMENT)[:_MAX_CHARACTERS]
    return text.encode("utf-8", "replace").decode()


def plain_table(table: Mapping[Any, Any]) -> dict[str, Any]:
    """Headers as JSON, whatever a foreign client put there.

    Args:
        table: A field table.
    """
    return {storable(name) or "": _plain(value, _MAX_DEPTH) for name, value in table.items()}


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)
    if depth and isinstance(value, Mapping):
        return {storable(name) or "": _plain(inner, depth - 1) for name, inner in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_plain(inner, depth - 1) for inner in value]
    return storable(value)
