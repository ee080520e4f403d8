"""Every error of `/v1/` in OpenAI's form, `{"error": {message, type, param, code}}`: by which status an SDK knows it."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from starlette.responses import Response

from contracts.errors import ErrorCode
from contracts.results import State
from gateway.http.problems import Problem, ProblemType
from gateway.services.views import location

PREFIX = "/v1/"
"""Paths that speak this dialect."""
COMMAND_ID = "Ish-Command-Id"
"""Response header: the command behind the answer, to be read at /api/commands/{id}."""
_RETRY = "x-should-retry"
"""What OpenAI's SDKs go by before they send a request again, which would be another command."""

_INVALID, _SERVER, _RATE = "invalid_request_error", "server_error", "rate_limit_error"
_PROBLEMS = {
    ProblemType.INVALID_REQUEST: (400, _INVALID, None),
    ProblemType.MISSING_KEY: (401, _INVALID, "invalid_api_key"),
    ProblemType.BAD_KEY: (401, _INVALID, "invalid_api_key"),
    ProblemType.NOT_FOUND: (404, _INVALID, "not_found"),
    ProblemType.METHOD_NOT_ALLOWED: (405, _INVALID, "method_not_supported"),
    ProblemType.KEY_REUSED: (422, _INVALID, "idempotency_key_reused"),
}
"""Others keep their status; their slug is the code."""
_RESULTS = {
    ErrorCode.INVALID_PAYLOAD: (400, _INVALID, "invalid_value", None),
    ErrorCode.MODEL_NOT_FOUND: (404, _INVALID, "model_not_found", "model"),
    ErrorCode.CONTEXT_TOO_LONG: (400, _INVALID, "context_length_exceeded", "messages"),
    ErrorCode.CONTENT_REFUSED: (400, _INVALID, "content_filter", "messages"),
    ErrorCode.CANCELLED: (409, _INVALID, "cancelled", None),
    ErrorCode.PROVIDER_RATE_LIMITED: (429, _RATE, "rate_limit_exceeded", None),
    ErrorCode.NO_CAPACITY: (503, _SERVER, "no_capacity", None),
    ErrorCode.PROVIDER_NOT_CONFIGURED: (503, _SERVER, "provider_not_configured", None),
    ErrorCode.DEADLINE_PASSED: (504, _SERVER, "deadline_passed", None),
    ErrorCode.ATTEMPTS_EXHAUSTED: (502, _SERVER, "attempts_exhausted", None),
    ErrorCode.PROVIDER_UNAVAILABLE: (502, _SERVER, "provider_unavailable", None),
    ErrorCode.PROVIDER_TIMEOUT: (502, _SERVER, "provider_timeout", None),
    ErrorCode.PROVIDER_REJECTED: (502, _SERVER, "provider_rejected", None),
    ErrorCode.PROVIDER_AUTHENTICATION: (502, _SERVER, "provider_authentication", None),
    ErrorCode.PROVIDER_MALFORMED: (502, _SERVER, "provider_malformed", None),
    ErrorCode.PROVIDER_INCOMPLETE: (502, _SERVER, "provider_incomplete", None),
}
"""Status, type, code and param of a failed command; any other error is a 500."""
_ENDED_BY_WAITING = {ErrorCode.DEADLINE_PASSED, ErrorCode.ATTEMPTS_EXHAUSTED}
_SAID_BY_ITS_CAUSE = {ErrorCode.PROVIDER_RATE_LIMITED, ErrorCode.NO_CAPACITY}


class Failure(Exception):
    """A request that ends with an error.

    Args:
        status: HTTP's.
        message: One sentence for a person.
        type: OpenAI's word for whose fault it is.
        code: For programs.
        param: The parameter that is wrong.
        headers: Response headers.
    """

    def __init__(
        self,
        *,
        status: int,
        message: str,
        type: str,  # noqa: A002  # OpenAI's own name
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The error as a JSON document, also as the data of an event."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})

    def response(self) -> Response:
        """The error as an answer."""
        return Response(self.body(), self.status, self.headers, "application/json")


def of_problem(problem: Problem, *, status: int | None = None) -> Failure:
    """A problem of the gateway's own.

    Args:
        problem: What is wrong.
        status: Another status than the type's own.
    """
    kind = problem.type.value
    default = (kind.status, _SERVER if kind.status >= 500 else _INVALID, kind.slug.replace("-", "_"))  # noqa: PLR2004  # HTTP's own border
    own_status, type_, code = _PROBLEMS.get(problem.type, default)
    headers = dict(problem.headers)
    if "id" in problem.members:
        # perhaps it is queued: only a request that names it the same may come again by itself
        headers |= {COMMAND_ID: str(problem.members["id"]), _RETRY: "false"}
    return Failure(
        status=status or own_status,
        message=f"{kind.title}. {problem.detail}" if not problem.errors else problem.detail,
        type=type_,
        code=problem.members.get("code", code),
        param=problem.errors[0]["field"] if problem.errors and own_status != 401 else None,  # noqa: PLR2004  # a key is no parameter
        headers=headers,
    )


def of_result(document: dict[str, Any], *, provider_named: bool) -> Failure:
    """A command that did not succeed.

    Args:
        document: Its result.
        provider_named: Whether the request asked for one provider.
    """
    error: dict[str, Any] = document.get("error") or {}
    code = error.get("code", ErrorCode.INTERNAL)
    cause = (error.get("details") or {}).get("last_error")
    if code in _ENDED_BY_WAITING and cause in _SAID_BY_ITS_CAUSE:
        code = cause
    status, type_, name, param = _RESULTS.get(code, (500, _SERVER, str(code), None))
    if code == ErrorCode.PROVIDER_NOT_CONFIGURED and provider_named:
        status, type_, param = 400, _INVALID, "provider"
    if document["status"] == State.CANCELLED:
        status, type_, name, param = _RESULTS[ErrorCode.CANCELLED]
    return Failure(
        status=status,
        message=str(error.get("message", "The command did not succeed.")),
        type=type_,
        code=name,
        param=param,
        # it has been tried for as long as it was allowed to
        headers=_of_command(document["command_id"], again=False),
    )


def unfinished(command_id: UUID, why: str, *, status: int, code: str, keyed: bool) -> Failure:
    """The command goes on, and this request does not.

    Args:
        command_id: The command.
        why: What ends the request, as a sentence.
        status: HTTP's.
        code: For programs.
        keyed: The request has an Idempotency-Key: sent again it finds the same command.
    """
    return Failure(
        status=status,
        message=f"{why} Command {command_id} goes on: read its result at GET {location(command_id)}.",
        type=_SERVER,
        code=code,
        headers=_of_command(command_id, again=keyed),
    )


def _of_command(command_id: UUID | str, *, again: bool) -> dict[str, str]:
    return {COMMAND_ID: str(command_id), _RETRY: "true" if again else "false"}
