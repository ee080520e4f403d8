"""The hot path: one POST becomes one command on the broker, and is answered 202 when the broker has confirmed it.

    key -> headers -> body -> payload -> id (reserved for an Idempotency-Key) -> publish, confirmed -> record -> 202 | 200

Written against ASGI itself: an ordinary route spends more time on its framework than this spends on the command.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import orjson
from starlette.types import Receive, Scope, Send
from yarl import URL

from contracts.commands import Kind, decode_payload, fingerprint, repeatable, routing_key
from contracts.envelope import Envelope, write_envelope
from contracts.errors import Permanent
from contracts.metrics import PUBLISH_FAILURES
from contracts.publisher import Outgoing, PublishFailed, Unconfirmed
from contracts.results import State
from contracts.topology import COMMANDS
from gateway import PUBLISHER
from gateway.edge import ROUTE
from gateway.identities import Earlier, identity
from gateway.intake import Asked, headers_of, read_asked, read_body, request_id_of
from gateway.parts import Parts
from gateway.problems import Problem, ProblemType, invalid_body
from gateway.recorder import Accepted
from gateway.views import encode, location, stored, summary
from gateway.waiting import within


@dataclass(frozen=True, slots=True)
class _Answer:
    """A command and what is known of it when its sender is answered."""

    id: UUID
    status: str
    accepted_at: datetime
    deadline_at: datetime
    result: bytes | str | None = None


class Accept:
    """The route of one kind of command.

    Args:
        parts: What the gateway consists of.
        kind: The kind.
        path: Its template, for the metrics.
    """

    def __init__(self, parts: Parts, kind: Kind, path: str) -> None:
        self._parts = parts
        self._kind = kind
        self._path = path
        self._user = URL(parts.settings.amqp_url).user or PUBLISHER
        self._default_deadline = timedelta(seconds=parts.settings.command_deadline_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one POST."""
        scope[ROUTE] = self._path
        headers = headers_of(scope)
        owner = await self._parts.keys.owner_of(headers)
        asked = read_asked(headers, scope["query_string"])
        body = await read_body(receive, headers, limit_bytes=self._parts.settings.body_limit_bytes)
        accepted = self._accept(owner, asked, body, request_id_of(scope))
        if asked.wait_seconds:
            answer = await self._publish_and_wait(accepted, asked)
        else:
            answer = await self._publish(accepted, asked)
        await self._respond(send, answer, asked)

    def _accept(self, owner: str, asked: Asked, body: bytes, correlation_id: str) -> Accepted:
        try:
            payload = decode_payload(self._kind, body)
        except Permanent as error:
            raise invalid_body(error) from None
        now = datetime.now(UTC)
        # messages carry milliseconds; the record must not differ from them
        accepted_at = now.replace(microsecond=now.microsecond // 1000 * 1000)
        life = timedelta(seconds=asked.deadline_seconds) if asked.deadline_seconds else self._default_deadline
        return Accepted(
            id=identity(owner, asked.idempotency_key) if asked.idempotency_key else uuid4(),
            fingerprint=fingerprint(self._kind.name, body),
            kind=self._kind.name,
            owner=owner,
            routing_key=routing_key(self._kind, priority=asked.priority),
            reply_to=self._parts.replies.address if asked.wait_seconds else None,
            correlation_id=correlation_id,
            traceparent=asked.traceparent,
            priority=asked.priority,
            payload=body,
            repeatable=repeatable(payload),
            accepted_at=accepted_at,
            deadline_at=accepted_at + life,
        )

    async def _publish_and_wait(self, accepted: Accepted, asked: Asked) -> _Answer:
        with self._parts.waiting.expect(PUBLISHER, accepted.id) as future:
            answer = await self._publish(accepted, asked)
            if answer.result is None:
                result = await within(future, asked.wait_seconds)
                if result is not None:
                    return _finished(answer, result)
        return answer

    async def _publish(self, accepted: Accepted, asked: Asked) -> _Answer:
        if asked.idempotency_key:
            earlier = await self._earlier(accepted)
            if earlier is not None:
                return earlier
        await self._confirmed(accepted)
        await self._parts.recorder.record(accepted)
        return _Answer(accepted.id, State.QUEUED, accepted.accepted_at, accepted.deadline_at)

    async def _earlier(self, accepted: Accepted) -> _Answer | None:
        """What was accepted under this Idempotency-Key before; None when it is to be published."""
        pending = self._parts.recorder.find(accepted.owner, accepted.id)
        if pending is not None:
            _same_body(pending.fingerprint, accepted)
            return _Answer(pending.id, State.QUEUED, pending.accepted_at, pending.deadline_at)
        earlier: Earlier | None = await self._parts.identities.reserve(accepted.id, accepted.fingerprint)
        if earlier is None:
            return None
        _same_body(earlier.fingerprint, accepted)
        if earlier.state is None or earlier.accepted_at is None or earlier.deadline_at is None:
            return None
        return _Answer(accepted.id, earlier.state, earlier.accepted_at, earlier.deadline_at, earlier.result)

    async def _confirmed(self, accepted: Accepted) -> None:
        envelope = Envelope(
            publisher=PUBLISHER,
            id=accepted.id,
            kind=self._kind,
            owner=accepted.owner,
            accepted_at=accepted.accepted_at,
            deadline_at=accepted.deadline_at,
            correlation_id=accepted.correlation_id,
            reply_to=accepted.reply_to,
            traceparent=accepted.traceparent,
            priority=accepted.priority,
        )
        outgoing = Outgoing(COMMANDS, accepted.routing_key, write_envelope(envelope, user=self._user), accepted.payload)
        publisher = self._parts.publisher
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
                members={"id": str(accepted.id), "links": {"self": location(accepted.id)}},
            ) from None
        except PublishFailed as error:
            raise _broker_away(type(error).__name__.lower(), f"Nothing was queued: {error}.") from None

    async def _respond(self, send: Send, answer: _Answer, asked: Asked) -> None:
        waited = asked.wait_seconds > 0 and answer.result is not None
        more = {"result": stored(answer.result)} if waited else {}
        body = encode(
            summary(
                answer.id,
                self._kind.name,
                answer.status,
                accepted_at=answer.accepted_at,
                deadline_at=answer.deadline_at,
                **more,
            )
        )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"location", location(answer.id).encode()),
        ]
        if waited:
            headers.append((b"preference-applied", f"wait={asked.wait_seconds}".encode()))
        await send({"type": "http.response.start", "status": 200 if waited else 202, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _same_body(known: bytes, accepted: Accepted) -> None:
    if known != accepted.fingerprint:
        raise Problem(
            ProblemType.KEY_REUSED,
            "Use a new key for a new request.",
            errors=[{"field": "Idempotency-Key", "rule": "stands for the body that it first came with"}],
        )


def _finished(answer: _Answer, result: bytes) -> _Answer:
    status = orjson.loads(result)["status"]
    return _Answer(answer.id, status, answer.accepted_at, answer.deadline_at, result)


def _broker_away(reason: str, detail: str) -> Problem:
    PUBLISH_FAILURES.labels(reason).inc()
    return Problem(ProblemType.BROKER_AWAY, detail)
