"""Makes commands of checked payloads and gets them onto the broker, confirmed; every route that accepts one uses this.

In this order: id (reserved for an Idempotency-Key) -> publish, confirmed -> record.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import orjson
from pydantic import BaseModel
from yarl import URL

from contracts.amqp.messages import command_message
from contracts.amqp.publisher import PublishFailed, Unconfirmed
from contracts.commands import Kind, fingerprint, recorded_body, repeatable, routing_key
from contracts.envelope import Envelope
from contracts.metrics import PUBLISH_FAILURES
from contracts.results import State
from contracts.tables import CommandRow
from gateway import PUBLISHER
from gateway.container import Parts
from gateway.http.problems import Problem, ProblemType
from gateway.http.request import Asked
from gateway.services.idempotency import Earlier, identity
from gateway.services.views import location


@dataclass(frozen=True, slots=True)
class Accepted:
    """A command that a request asks for."""

    row: CommandRow
    """What is recorded of it."""
    body: bytes = field(repr=False)
    """What is published: its payload, secrets included."""

    @property
    def id(self) -> UUID:
        """The command."""
        return self.row.envelope.id


@dataclass(frozen=True, slots=True)
class Standing:
    """An accepted command and what is known of it."""

    id: UUID
    status: str
    accepted_at: datetime
    deadline_at: datetime
    result: bytes | str | None = None
    """As stored; known here when it was waited for, or had finished under the same Idempotency-Key before."""

    def finished(self, result: bytes) -> "Standing":
        """The same command when its result has come.

        Args:
            result: As stored.
        """
        return Standing(self.id, orjson.loads(result)["status"], self.accepted_at, self.deadline_at, result)


class Publishing:
    """Publishes commands of one kind.

    Args:
        parts: What the gateway consists of.
        kind: The kind.
        deadline_seconds: Of a command that names none; None takes the setting's.
    """

    def __init__(self, parts: Parts, kind: Kind, *, deadline_seconds: float | None = None) -> None:
        self._parts = parts
        self._kind = kind
        self._user = URL(parts.settings.amqp_url).user or PUBLISHER
        self._default_deadline = timedelta(seconds=deadline_seconds or parts.settings.command_deadline_seconds)

    def command(
        self, owner: str, asked: Asked, *, body: bytes, payload: BaseModel, correlation_id: str, waits: bool
    ) -> Accepted:
        """The command that a request asks for.

        Args:
            owner: Of its API key.
            asked: What its headers say.
            body: The payload's bytes.
            payload: The same, checked.
            correlation_id: Names the request.
            waits: Whether somebody waits for the result at this gateway.
        """
        now = datetime.now(UTC)
        # messages carry milliseconds; the record must not differ from them
        accepted_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
        life = timedelta(seconds=asked.deadline_seconds) if asked.deadline_seconds else self._default_deadline
        envelope = Envelope(
            publisher=PUBLISHER,
            id=identity(owner, asked.idempotency_key) if asked.idempotency_key else uuid4(),
            kind=self._kind,
            owner=owner,
            accepted_at=accepted_at,
            deadline_at=accepted_at + life,
            correlation_id=correlation_id,
            reply_to=self._parts.replies.address if waits else None,
            traceparent=asked.traceparent,
            priority=asked.priority,
        )
        row = CommandRow(
            envelope,
            fingerprint=fingerprint(self._kind.name, body),
            routing_key=routing_key(self._kind, priority=asked.priority, payload=payload),
            payload=recorded_body(self._kind.name, body).decode(),
            repeatable=repeatable(payload),
        )
        return Accepted(row, body)

    async def publish(self, command: Accepted, *, keyed: bool) -> Standing:
        """Publish a command and record it as queued, unless it was accepted before.

        Args:
            command: From `command`.
            keyed: Its id stands for an Idempotency-Key.

        Raises:
            Problem: The broker has not taken it, or the key came with another body before.
        """
        if keyed:
            earlier = await self._earlier(command)
            if earlier is not None:
                return earlier
        await self._confirmed(command)
        await self._parts.recorder.record(command.row)
        return _queued(command.row)

    async def _earlier(self, command: Accepted) -> Standing | None:
        """What was accepted under this Idempotency-Key before; None when it is to be published."""
        pending = self._parts.recorder.find(command.row.envelope.owner, command.id)
        if pending is not None:
            _same_body(pending.fingerprint, command)
            return _queued(pending)
        earlier: Earlier | None = await self._parts.identities.reserve(command.row)
        if earlier is None:
            return None
        _same_body(earlier.fingerprint, command)
        if earlier.state is None or earlier.accepted_at is None or earlier.deadline_at is None:
            return None
        return Standing(command.id, earlier.state, earlier.accepted_at, earlier.deadline_at, earlier.result)

    async def _confirmed(self, command: Accepted) -> None:
        row = command.row
        outgoing = command_message(row.envelope, command.body, user=self._user, key=row.routing_key)
        publisher = self._parts.publisher
        if publisher.is_blocked:
            raise _broker_away("blocked", "It has raised a memory or disk alarm. Nothing was sent.")
        sent: asyncio.Future[None] | None = None
        try:
            if publisher.is_open:
                # its own sweep ends the wait in time, at less cost than a time-out for each request
                sent = publisher.send_now(outgoing)
                await sent
            else:
                async with asyncio.timeout(self._parts.settings.publish_timeout_seconds):
                    sent = await publisher.send(outgoing)
                    await sent
        except (TimeoutError, Unconfirmed):
            if sent is None:
                raise _broker_away("not_sent", "It cannot be reached. Nothing was sent.") from None
            PUBLISH_FAILURES.labels("unconfirmed").inc()
            raise Problem(
                ProblemType.NOT_CONFIRMED,
                "It may or may not be queued. Ask for it under its id; sent again with the same Idempotency-Key it "
                "cannot run twice.",
                members={"id": str(command.id), "links": {"self": location(command.id)}},
            ) from None
        except PublishFailed as error:
            raise _broker_away(type(error).__name__.lower(), f"Nothing was queued: {error}.") from None


def _queued(row: CommandRow) -> Standing:
    return Standing(row.envelope.id, State.QUEUED, row.envelope.accepted_at, row.envelope.deadline_at)


def _same_body(known: bytes, command: Accepted) -> None:
    if known != command.row.fingerprint:
        raise Problem(
            ProblemType.KEY_REUSED,
            "Use a new key for a new request.",
            errors=[{"field": "Idempotency-Key", "rule": "stands for the body that it first came with"}],
        )


def _broker_away(reason: str, detail: str) -> Problem:
    PUBLISH_FAILURES.labels(reason).inc()
    return Problem(ProblemType.BROKER_AWAY, detail)
