"""Dead letters: messages that will not be run, each with its reason and its exact bytes, in a table of their own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from contracts.amqp.messages import Refusal
from contracts.commands import KIND_ANDROID, KINDS
from contracts.redaction import redacted
from workers.stages import Admitted

_UNREADABLE_CHARACTERS = 2000
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")

_DEAD_LETTERS = """
insert into dead_letters (reason, message, publisher, message_id, type, queue, routing_key, reply_to, headers, body)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
  $9::jsonb[], $10::bytea[])
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that will not be run, with its reason."""

    reason: str
    message: str
    publisher: str | None
    message_id: str | None
    type: str | None
    queue: str
    routing_key: str
    reply_to: str | None
    headers: dict[str, Any]
    body: bytes
    refusal: Refusal | None = None
    """The answer to it, where there is somebody to be answered; not stored."""


def dead_letter_of(admitted: Admitted, *, reason: str, message: str, queue: str) -> DeadLetter:
    """The dead letter of a message that was read, and will not be run or has failed for good.

    Args:
        admitted: The message.
        reason: Its code.
        message: What is wrong, in a sentence.
        queue: The work queue.
    """
    delivery, envelope = admitted.delivery, admitted.envelope
    return DeadLetter(
        reason=reason,
        message=message,
        publisher=envelope.publisher,
        message_id=str(envelope.id),
        type=envelope.kind.type,
        queue=queue,
        routing_key=delivery.routing_key,
        reply_to=envelope.reply_to,
        headers=dict(delivery.properties.headers or {}),
        body=delivery.body,
    )


def stored_body(letter: DeadLetter) -> bytes:
    """What is kept of a letter's body: all but a secret that is to be typed.

    Args:
        letter: The letter; one whose type is odd or missing may have a secret too.
    """
    kind = (letter.type or "").rpartition(".v")[0]
    return letter.body if kind in KINDS and kind != KIND_ANDROID else redacted(letter.body)


def bare(letter: DeadLetter) -> DeadLetter:
    """The same with nothing but its reason, its names and its bytes; for one that cannot be kept as it is.

    Args:
        letter: The dead letter.
    """
    return replace(letter, message=letter.reason, routing_key="", reply_to=None, headers={})


async def insert_dead_letters(connection: Any, letters: Sequence[DeadLetter]) -> None:
    """Keep messages that will not be run.

    Args:
        connection: Any connection.
        letters: The messages, with their reasons.
    """
    await connection.execute(
        _DEAD_LETTERS,
        [one.reason for one in letters],
        [storable(one.message) for one in letters],
        [storable(one.publisher) for one in letters],
        [storable(one.message_id) for one in letters],
        [storable(one.type) for one in letters],
        [one.queue for one in letters],
        [storable(one.routing_key) for one in letters],
        [storable(one.reply_to) for one in letters],
        [_storable_headers(one.headers) for one in letters],
        [stored_body(one) for one in letters],
    )


def storable(text: str | None) -> str | None:
    """Text of a message nobody has checked, as PostgreSQL can hold it: a dead letter must never be refused in turn.

    Args:
        text: Any.
    """
    if text is None:
        return None
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _storable_headers(headers: dict[str, Any]) -> str:
    try:
        text = orjson.dumps(headers, default=str).decode()
    except TypeError:  # nested too deeply, or a number beyond 64 bits
        text = orjson.dumps({"(unreadable)": repr(headers)[:_UNREADABLE_CHARACTERS]}).decode()
    # jsonb refuses an escaped NUL; an even number of backslashes before it means that it is none
    return _ESCAPED_NUL.sub(r"\1\\ufffd", text)
