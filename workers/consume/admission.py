"""Admission: decides of a delivery, without I/O, whether it is a command of this pool; nothing is believed unchecked."""

from collections.abc import Collection
from datetime import datetime, timedelta

from pydantic import BaseModel

from contracts.commands import InvalidPayload, Kind, decode_payload, fingerprint, recorded_body, repeatable, routing_key
from contracts.envelope import Refused, read_envelope
from contracts.errors import ErrorCode, Permanent
from contracts.topology import OWN_USERS, ROUTING_KEYS, kind_key
from workers.consume.refusals import refusal_of
from workers.stages import Admitted, Delivery
from workers.store.dead_letters import DeadLetter
from workers.store.publishers import Kinds


class Unreadable(BaseModel):
    """Stands for a payload that does not fit; such a command is recorded as failed and never run."""


def admit(
    delivery: Delivery,
    *,
    queue: str,
    kinds: Collection[str],
    default_deadline: timedelta,
    now: datetime,
    body_limit_bytes: int | None = None,
    publishers: Kinds | None = None,
) -> Admitted | DeadLetter:
    """Check one delivery.

    Args:
        delivery: As received.
        queue: The work queue it came from.
        kinds: Names of the kinds that this pool serves.
        default_deadline: For a command that names none.
        now: The current time.
        body_limit_bytes: The largest body that is a command; None does not ask.
        publishers: Which kinds outside publishers may send; None leaves that to the broker.

    Returns:
        A command to claim (one that does not fit carries its `fault`, so that its publisher gets a result), or
        a dead letter when it cannot be recorded as a command; its `refusal` is the answer, where one can be given.
    """
    try:
        envelope = read_envelope(delivery.properties, default_deadline=default_deadline, now=now)
        _refuse_route(delivery, queue=queue, publishers=publishers)
    except Refused as refused:
        return dead_letter(delivery, refused, queue=queue)
    fault: Permanent | None = None
    payload: BaseModel = Unreadable()
    try:
        _refuse_stray(envelope.kind, queue=queue, kinds=kinds)
        payload = _decode(envelope.kind, delivery.body, limit_bytes=body_limit_bytes)
    except Permanent as error:
        fault = error
    return Admitted(
        delivery,
        envelope,
        payload,
        # a body that is no text could not be stored; its bytes are kept with the dead letter
        text=recorded_body(envelope.kind.name, delivery.body)
        .decode("utf-8", "replace")
        .replace("\x00", "\N{REPLACEMENT CHARACTER}"),
        fingerprint=fingerprint(envelope.kind.name, delivery.body),
        repeatable=repeatable(payload),
        fault=fault,
    )


def _refuse_route(delivery: Delivery, *, queue: str, publishers: Kinds | None) -> None:
    """Refuse what came by another way than its key's, or by a key that its publisher may not use.

    The broker checks the key of a publish, and not always where else it goes: BCC is taken off before delivery and
    leaves no trace but a key that does not lead here. What our own users publish was checked when it first came.
    """
    user, key = delivery.properties.user_id or "", delivery.routing_key

    def refuse(code: ErrorCode, sentence: str) -> Refused:
        return Refused(code, sentence, publisher=user, message_id=delivery.properties.message_id)

    if user in OWN_USERS:
        return
    kind = kind_key(key)
    wanted = ROUTING_KEYS.get(queue)
    if wanted is not None and kind != wanted and key != queue:
        raise refuse(
            ErrorCode.INVALID_HEADER,
            f"it came to {queue} with the routing key {key[:100]!r}: publish it with {wanted!r}",
        )
    allowed = publishers.of(user) if publishers is not None else None
    kind = wanted or kind
    if allowed is not None and kind is not None and kind not in allowed:
        sentence = f"{user} may not publish {kind!r}: it may publish {', '.join(sorted(allowed)) or 'nothing'}"
        raise refuse(ErrorCode.FORBIDDEN_KIND, sentence)


def _refuse_stray(kind: Kind, *, queue: str, kinds: Collection[str]) -> None:
    if kind.name not in kinds:
        sentence = f"{kind.type} does not belong on {queue}: publish it with the routing key {routing_key(kind)}"
        raise Permanent(ErrorCode.WRONG_QUEUE, sentence)


def _decode(kind: Kind, body: bytes, *, limit_bytes: int | None) -> BaseModel:
    if limit_bytes is not None and len(body) > limit_bytes:
        raise InvalidPayload([{"field": "(body)", "rule": f"must be at most {limit_bytes} bytes"}])
    return decode_payload(kind, body)


def dead_letter(delivery: Delivery, refused: Refused, *, queue: str) -> DeadLetter:
    """The dead letter of a message that cannot become a command.

    Args:
        delivery: As received.
        refused: Why, with what could be read.
        queue: The work queue it came from.
    """
    properties = delivery.properties
    return DeadLetter(
        reason=refused.code.value,
        message=refused.message,
        publisher=refused.publisher,
        message_id=refused.message_id,
        type=properties.message_type,
        queue=queue,
        routing_key=delivery.routing_key,
        reply_to=properties.reply_to,
        headers=dict(properties.headers or {}),
        body=delivery.body,
        refusal=refusal_of(properties, refused, routing_key=delivery.routing_key),
    )
