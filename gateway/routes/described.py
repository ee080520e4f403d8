"""What every request may carry and every answer has, in OpenAPI's form: the rules that the code checks, told to programs."""

import re
from typing import Any

from contracts.envelope import MAX_DEADLINE, PRIORITIES
from gateway.http.problems import MEDIA_TYPE, ProblemType
from gateway.http.request import MAX_WAIT_SECONDS
from gateway.http.request_head import MAX_FIELDS, MAX_HEAD_BYTES, MAX_TARGET_BYTES
from gateway.openai.failures import COMMAND_ID, PREFIX

REFERENCE = "#/components/schemas/{model}"
PUBLIC = ("/health", "/ready")
_LOCAL = ("/metrics",)
"""Public to this machine, and with a key to others."""
_CURSOR = {"type": "string", "pattern": "^A[A-Za-z0-3][A-Za-z0-9_-]{33}$"}
"""26 bytes, of which the first eight are a time before the year 9857."""
_WAIT = {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_SECONDS}

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "enum": [f"urn:ish:problem:{one.value.slug}" for one in ProblemType]},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What is wrong with this request, and what to do."},
        "instance": {"type": "string", "description": "Names this request, as X-Request-Id does."},
        "errors": {
            "type": "array",
            "description": "Each fault of the request.",
            "items": {
                "type": "object",
                "required": ["field", "rule"],
                "properties": {
                    "field": {"type": "string", "description": "Header, parameter or member, with dots; or `(body)`."},
                    "rule": {"type": "string", "description": "What it must be."},
                },
            },
        },
        "id": {"type": "string", "format": "uuid", "description": "Of the command whose fate is unknown."},
    },
}
OPENAI_ERROR: dict[str, Any] = {
    "type": "object",
    "description": "An error in OpenAI's form.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

_HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "Idempotency-Key": (
        {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
        "Sent again with the same body it is the same command; with another body it is refused. Kept at least 24 hours.",
    ),
    "Prefer": (
        {"type": "string", "examples": ["wait=10"]},
        f"`wait=N`: wait up to N seconds (0 to {MAX_WAIT_SECONDS}) for the result (RFC 7240); `?wait=N` wins over it.",
    ),
    "Ish-Deadline-Seconds": (
        {"type": "number", "minimum": 0.001, "maximum": MAX_DEADLINE.total_seconds(), "multipleOf": 0.001},
        "The command expires when it has not finished by then; an hour by default.",
    ),
    "Ish-Priority": (
        {"type": "string", "enum": list(PRIORITIES)},
        "AI commands of priority `batch` have a queue of their own, behind the others.",
    ),
    "traceparent": (
        {"type": "string", "examples": ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]},
        "W3C trace context, carried to the worker; one that is none is ignored.",
    ),
}
_REQUEST_ID = (
    {"type": "string", "examples": ["order-17"]},
    "Names the request and, as correlation id, its command; one that does not match `[A-Za-z0-9._:/+=-]{1,128}` is replaced.",
)
_CONDITIONAL: dict[str, tuple[dict[str, Any], str]] = {
    "Range": ({"type": "string"}, "`bytes=FIRST-LAST`: one part; several are answered with the whole."),
    "If-Range": ({"type": "string"}, "The ETag that the part must be of."),
    "If-None-Match": ({"type": "string"}, "The ETag that you have: answered 304."),
}

_PROBLEMS = {
    "400": "A parameter is not as it must be; `param` names it.",
    "401": "The API key is unknown, revoked or expired.",
    "404": "You have no such thing.",
    "413": "The body is too large.",
    "415": "The body is of another media type, or encoded.",
    "422": "A field, parameter or header breaks its rule, and `errors` names it; or there is no API key.",
    "503": "The broker or the database does not answer now. Come again after `Retry-After`; what was not confirmed is "
    "unknown: send it again with the same Idempotency-Key.",
}
_ANY_PROBLEM = (
    f"Any other problem: 405 with `Allow`; 408 too slow; 414 a target over {MAX_TARGET_BYTES} bytes; 431 a header over "
    f"{MAX_FIELDS} fields or {MAX_HEAD_BYTES} bytes; 400, 417, 501 and 505 what is not HTTP/1.1 as it must be; 500."
)
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}}
_EVERY_ANSWER = {
    "X-Request-Id": {
        "description": "Yours, or a new one; also in the logs.",
        "required": True,
        "schema": {"type": "string"},
    }
}
ACCEPTED_HEADERS = {
    "Location": {"description": "Where the command is read.", "required": True, "schema": {"type": "string"}}
}
FINISHED_HEADERS = {
    **ACCEPTED_HEADERS,
    "Preference-Applied": {"description": "`wait=N`, as it was granted.", "schema": {"type": "string"}},
}
_OF_ARTIFACT = {
    "ETag": {"description": "Its hash, in quotes.", "schema": {"type": "string"}},
    "Accept-Ranges": {"description": "`bytes`.", "schema": {"type": "string"}},
    "Content-Range": {"description": "Of a part: which, and of how much.", "schema": {"type": "string"}},
}


def command_parameters() -> list[dict[str, Any]]:
    """What a request that makes a command may carry beside its body."""
    wait = {"name": "wait", "in": "query", "required": False, "schema": _WAIT}
    return [*_parameters(_HEADERS), {**wait, "description": "Seconds to wait for the result; 0 answers at once."}]


def complete(document: dict[str, Any]) -> None:
    """Add to each operation what all of its like have.

    Args:
        document: An OpenAPI document; changed in place.
    """
    schemas = document["components"]["schemas"]
    schemas["Problem"], schemas["OpenAiError"] = PROBLEM, OPENAI_ERROR
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(path, method, operation)


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    _complete_parameters(path, method, operation)
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own form of it
    for status in _statuses(path, operation):
        responses.setdefault(status, {"description": _PROBLEMS[status]})
    responses["default"] = {"description": _ANY_PROBLEM}
    for status, answer in responses.items():
        if not answer.get("content") and (status == "default" or int(status) >= 400):  # noqa: PLR2004  # HTTP's own border
            answer.update(_content(path))
        answer["headers"] = {**answer.get("headers", {}), **_answer_headers(path, method, status)}
    if path not in PUBLIC:
        operation["security"] = [{"key": []}, {"bearer": []}, *([{}] if path in _LOCAL else [])]


def _complete_parameters(path: str, method: str, operation: dict[str, Any]) -> None:
    parameters = operation.setdefault("parameters", [])
    for parameter in parameters:
        _without_null(parameter)
    known = {(one["in"], one["name"]) for one in parameters}
    more = {"X-Request-Id": _REQUEST_ID}
    if path == "/v1/chat/completions":
        more |= {name: _HEADERS[name] for name in _HEADERS if name != "Prefer"}
    if ("query", "wait") in known:
        more["Prefer"] = _HEADERS["Prefer"]
    if _is_artifact(path, method):
        more |= _CONDITIONAL
    parameters += [one for one in _parameters(more) if (one["in"], one["name"]) not in known]


def _is_artifact(path: str, method: str) -> bool:
    return method == "get" and re.fullmatch(r"/api/artifacts/\{\w+\}", path) is not None


def _answer_headers(path: str, method: str, status: str) -> dict[str, Any]:
    headers: dict[str, Any] = {**_EVERY_ANSWER}
    if status in {"429", "503"}:
        headers |= _RETRY_AFTER
    if path.startswith(PREFIX) and method == "post":
        headers[COMMAND_ID] = {"description": "The command behind the answer.", "schema": {"type": "string"}}
    if _is_artifact(path, method) and status in {"200", "206", "304", "416"}:
        headers |= _OF_ARTIFACT
    return headers


def _statuses(path: str, operation: dict[str, Any]) -> list[str]:
    if path in PUBLIC:
        return []
    found = ["400" if path.startswith(PREFIX) else "422", "401", "503"]
    if "{" in path:
        found.append("404")
    if "requestBody" in operation:
        found += ["413", "415"]
    return sorted(found)


def _content(path: str) -> dict[str, Any]:
    model, media_type = ("OpenAiError", "application/json") if path.startswith(PREFIX) else ("Problem", MEDIA_TYPE)
    return {"content": {media_type: {"schema": {"$ref": REFERENCE.format(model=model)}}}}


def _parameters(described: dict[str, tuple[dict[str, Any], str]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
        for name, (schema, text) in described.items()
    ]


def _without_null(parameter: dict[str, Any]) -> None:
    """A parameter that may be left out is never null: on the wire that is the word `null`."""
    schema = parameter.get("schema", {})
    forms = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(forms) == 1:
        del schema["anyOf"]
        parameter["schema"] = {**schema, **forms[0]}
    if parameter["name"] == "cursor":
        parameter["schema"] = _CURSOR
