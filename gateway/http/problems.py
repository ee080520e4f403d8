"""Error answers: RFC 9457 problem documents, one closed list of types, and never a stack, a query or a secret in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson
from starlette.responses import Response

from contracts.commands import InvalidPayload
from contracts.errors import CommandError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True)
class _Kind:
    slug: str
    status: int
    title: str


class ProblemType(Enum):
    """Every problem the gateway answers. Additive: a slug is never renamed."""

    INVALID_REQUEST = _Kind("invalid-request", 422, "The request is not valid")
    MISSING_KEY = _Kind("missing-api-key", 422, "An API key is required")
    BAD_KEY = _Kind("bad-api-key", 401, "The API key is not valid")
    NOT_FOUND = _Kind("not-found", 404, "There is no such thing")
    METHOD_NOT_ALLOWED = _Kind("method-not-allowed", 405, "This path does not answer that method")
    NOT_CANCELLABLE = _Kind("not-cancellable", 409, "The command cannot be cancelled any more")
    BODY_TOO_LARGE = _Kind("body-too-large", 413, "The body is too large")
    MEDIA_TYPE = _Kind("unsupported-media-type", 415, "The body must be JSON")
    BODY_STALLED = _Kind("body-stalled", 408, "The body stood still")
    UPLOAD_CONFLICT = _Kind("upload-conflict", 409, "The upload does not go on there")
    DIGEST_MISMATCH = _Kind("digest-mismatch", 422, "The bytes have another digest than was declared")
    TOO_MANY_UPLOADS = _Kind("too-many-uploads", 429, "Too many uploads are not finished")
    UPLOADS_BUSY = _Kind("uploads-busy", 503, "Too many uploads are being sent now")
    KEY_REUSED = _Kind("idempotency-key-reused", 422, "This Idempotency-Key came with another body before")
    OTHER = _Kind("request-refused", 400, "The request was refused")
    BAD_HTTP = _Kind("bad-http", 400, "The request is not HTTP as it must be")
    REQUEST_TIMEOUT = _Kind("request-timeout", 408, "The request did not come in time")
    TARGET_TOO_LONG = _Kind("target-too-long", 414, "The request's target is too long")
    CONTENT_ENCODING = _Kind("unsupported-content-encoding", 415, "The body must not be encoded")
    EXPECTATION = _Kind("expectation-failed", 417, "What the request expects is not met")
    HEADER_TOO_LARGE = _Kind("header-too-large", 431, "The request's header is too large")
    NOT_IMPLEMENTED = _Kind("not-implemented", 501, "The request asks for a part of HTTP that is not there")
    VERSION = _Kind("version-not-supported", 505, "That version of HTTP is not spoken here")
    TOO_MANY_CONNECTIONS = _Kind("too-many-connections", 503, "There are too many connections")
    NOT_CONFIRMED = _Kind("not-confirmed", 503, "The broker has not confirmed the command")
    BROKER_AWAY = _Kind("broker-unavailable", 503, "The broker does not take commands now")
    STORAGE_AWAY = _Kind("storage-unavailable", 503, "The database does not answer now")
    INTERNAL = _Kind("internal", 500, "Something is wrong on our side")


class Problem(Exception):
    """A request that cannot be answered as asked.

    Args:
        type: Which problem.
        detail: One sentence for a person: what is wrong with this request and what to do.
        errors: For a faulty request, each fault as `{"field": …, "rule": …}`.
        headers: Response headers, such as Retry-After.
        members: Further members of the document, such as the id of a command whose fate is unknown.
    """

    def __init__(
        self,
        type: ProblemType,  # noqa: A002  # RFC 9457's own name
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.type = type
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.members = dict(members or {})
        if type.value.status == 503:  # noqa: PLR2004  # every 503 says when to come back
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))


def invalid(field: str, rule: str) -> Problem:
    """A request with one faulty field.

    Args:
        field: Name of the header, parameter or member.
        rule: What it must be.
    """
    return Problem(ProblemType.INVALID_REQUEST, f"{field}: {rule}", errors=[{"field": field, "rule": rule}])


def invalid_body(error: CommandError) -> Problem:
    """A body that is no payload of its kind.

    Args:
        error: What `contracts.commands.decode_payload` raised.
    """
    if isinstance(error, InvalidPayload):
        return Problem(ProblemType.INVALID_REQUEST, error.message, errors=error.details["problems"])
    return Problem(
        ProblemType.INVALID_REQUEST, error.message, errors=[{"field": "(body)", "rule": "must be one JSON document"}]
    )


def storage_away() -> Problem:
    """The answer needs PostgreSQL, and it does not answer."""
    return Problem(ProblemType.STORAGE_AWAY, "Commands are still accepted; ask again when the database is back.")


def render(problem: Problem, request_id: str, *, status: int | None = None) -> Response:
    """The answer that tells of a problem.

    Args:
        problem: What is wrong.
        request_id: Names this request, also in the logs.
        status: Another status than the type's own.
    """
    kind = problem.type.value
    document = {
        "type": f"urn:ish:problem:{kind.slug}",
        "title": kind.title,
        "status": status or kind.status,
        "detail": problem.detail,
        "instance": f"urn:ish:request:{request_id}",
        **({"errors": problem.errors} if problem.errors else {}),
        **problem.members,
    }
    return Response(orjson.dumps(document), status or kind.status, problem.headers, MEDIA_TYPE)
