"""The one builder of messages: commands, waits, results with their events, and refusals.

Whoever publishes one, for the first time or again, gets it here, so that a message that is sent again is the same.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from contracts.amqp.frames import Properties
from contracts.amqp.publisher import Outgoing
from contracts.commands import VERSION, Kind, routing_key
from contracts.envelope import Envelope, waiting, write_envelope
from contracts.results import State
from contracts.tables import OutboxRow
from contracts.topology import COMMANDS, REPLIES, RESULTS, RETRY, retry_level, retry_queue

UNKNOWN_KIND = "unknown"


def command_message(envelope: Envelope, body: bytes, *, user: str, key: str | None = None) -> Outgoing:
    """A command on its way to the workers.

    Args:
        envelope: Its envelope.
        body: Its payload.
        user: This process's own RabbitMQ user.
        key: Its key on `ish.commands`; None takes that of its kind and priority.
    """
    key = key if key is not None else routing_key(envelope.kind, priority=envelope.priority)
    return Outgoing(COMMANDS, key, write_envelope(envelope, user=user), body)


def waiting_message(
    envelope: Envelope, body: bytes, *, user: str, work_queue: str, until: datetime, attempt: int
) -> Outgoing:
    """A command on its way to a wait queue, from where it comes back to its work queue.

    Args:
        envelope: Its envelope.
        body: Its payload.
        user: This process's own RabbitMQ user.
        work_queue: Where it comes back to.
        until: When it is due.
        attempt: The run that comes next.
    """
    seconds = (until - datetime.now(UTC)).total_seconds()
    properties = write_envelope(waiting(envelope, not_before=until, attempt=attempt), user=user)
    return Outgoing(RETRY, retry_queue(work_queue, retry_level(seconds)), properties, body)


def result_messages(envelope: Envelope, *, status: str, body: bytes, user: str) -> list[Outgoing]:
    """The messages that tell of a result: the reply, if one was asked for, and then the event for anyone who listens.

    Args:
        envelope: The command's; its `reply_to` was checked when it came in.
        status: Its terminal state.
        body: The stored result.
        user: This process's own RabbitMQ user.
    """
    properties = Properties(
        message_id=str(envelope.id),
        type=envelope.kind.result_type,
        user_id=user,
        app_id="ish-chat",
        correlation_id=envelope.correlation_id,
    )
    event = Outgoing(RESULTS, f"{envelope.kind.name}.{status}", properties, body, mandatory=False)
    if envelope.reply_to is None:
        return [event]
    return [Outgoing(REPLIES, envelope.reply_to, properties, body), event]


def outbox_messages(row: OutboxRow, *, user: str) -> list[Outgoing]:
    """The messages that a row of the outbox stands for.

    Args:
        row: As it was written, or as it was read again.
        user: This process's own RabbitMQ user.
    """
    if row.status is None:
        return [command_message(row.envelope, row.body, user=user)]
    return result_messages(row.envelope, status=row.status, body=row.body, user=user)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Whom to tell that a message cannot become a command, and why."""

    reply_to: str
    message_id: str
    """As it came; empty when none did."""
    correlation_id: str | None
    kind: Kind | None
    """What its type or else its routing key says; None when neither says it."""
    code: str
    sentence: str


def refusal_message(refusal: Refusal, *, user: str, worker: str | None = None) -> Outgoing:
    """The `failed` result of a message that cannot become a command.

    Args:
        refusal: Whom to tell, and what.
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


def _uuid(message_id: str) -> str | None:
    try:
        return str(UUID(message_id))
    except ValueError:
        return None
