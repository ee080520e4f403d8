"""The hot path: one POST becomes one command on the broker, and is answered 202 when the broker has confirmed it.

    key -> headers -> body -> payload -> command, published and recorded (`gateway.publishing`) -> 202 | 200

Written against ASGI itself: an ordinary route spends more time on its framework than this spends on the command.
"""

from collections.abc import Callable

from starlette.types import Receive, Scope, Send

from contracts.android.command import AndroidExecute
from contracts.commands import Kind, decode_payload
from contracts.errors import Permanent
from gateway import PUBLISHER
from gateway.container import Parts
from gateway.http.middleware import ROUTE
from gateway.http.problems import invalid, invalid_body
from gateway.http.request import Asked, headers_of, read_asked, read_body, request_id_of
from gateway.publishing import Accepted, Publishing, Standing
from gateway.routes.artifacts import missing_artifacts
from gateway.services.database import DatabaseAway
from gateway.services.result_waiters import within
from gateway.services.views import encode, location, stored, summary

PayloadOf = Callable[[Scope, bytes], bytes]


class Accept:
    """The route of one kind of command.

    Args:
        parts: What the gateway consists of.
        kind: The kind.
        path: Its template, for the metrics.
        payload_of: Makes the payload of a request and its body; None takes the body as it is.
    """

    def __init__(self, parts: Parts, kind: Kind, path: str, *, payload_of: PayloadOf | None = None) -> None:
        self._parts = parts
        self._kind = kind
        self._path = path
        self._payload_of = payload_of
        self._publishing = Publishing(parts, kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope[ROUTE] = self._path
        headers = headers_of(scope)
        owner = await self._parts.keys.owner_of(headers)
        asked = read_asked(headers, scope["query_string"])
        body = await read_body(receive, headers, limit_bytes=self._parts.settings.body_limit_bytes)
        command = await self._command(owner, asked, body, scope)
        if asked.wait_seconds:
            standing = await self._publish_and_wait(command, asked)
        else:
            standing = await self._publishing.publish(command, keyed=asked.idempotency_key is not None)
        await self._respond(send, standing, asked)

    async def _command(self, owner: str, asked: Asked, body: bytes, scope: Scope) -> Accepted:
        try:
            if self._payload_of is not None:
                body = self._payload_of(scope, body)
            payload = decode_payload(self._kind, body)
        except Permanent as error:
            raise invalid_body(error) from None
        if isinstance(payload, AndroidExecute) and payload.secret_is_gone:
            raise invalid("text", "must be a string")
        if isinstance(payload, AndroidExecute) and payload.artifacts:
            await self._check_artifacts(owner, payload.artifacts)
        return self._publishing.command(
            owner,
            asked,
            body=body,
            payload=payload,
            correlation_id=request_id_of(scope),
            waits=asked.wait_seconds > 0,
        )

    async def _check_artifacts(self, owner: str, artifacts: tuple[str, ...]) -> None:
        """Refuse a command that names what its owner does not have; its worker looks again when it runs."""
        try:
            missing = await missing_artifacts(self._parts, owner, artifacts)
        except DatabaseAway:
            return  # commands are accepted while PostgreSQL is away
        if missing:
            raise invalid("artifact", f"you have no artifact {missing[0]}; POST /api/artifacts stores one")

    async def _publish_and_wait(self, command: Accepted, asked: Asked) -> Standing:
        with self._parts.waiting.expect(PUBLISHER, command.id) as future:
            standing = await self._publishing.publish(command, keyed=asked.idempotency_key is not None)
            if standing.result is None:
                result = await within(future, asked.wait_seconds)
                if result is not None:
                    return standing.finished(result)
        return standing

    async def _respond(self, send: Send, standing: Standing, asked: Asked) -> None:
        waited = asked.wait_seconds > 0 and standing.result is not None
        more = {"result": stored(standing.result)} if waited else {}
        body = encode(
            summary(
                standing.id,
                self._kind.name,
                standing.status,
                accepted_at=standing.accepted_at,
                deadline_at=standing.deadline_at,
                **more,
            )
        )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"location", location(standing.id).encode()),
        ]
        if waited:
            headers.append((b"preference-applied", f"wait={asked.wait_seconds}".encode()))
        await send({"type": "http.response.start", "status": 200 if waited else 202, "headers": headers})
        await send({"type": "http.response.body", "body": body})
