"""What each fault does on the wire."""

from collections.abc import Callable

import orjson

from ops.scripted_provider.chat import answer_text, completion
from ops.scripted_provider.scripts import Call, Fault
from ops.scripted_provider.wire import JSON, Ending, Pause, Plan, head, http

HUGE_BODY_BYTES = 64 * 1024 * 1024
TRICKLE_SECONDS = 1.0
_SENT = Pause(0.02)  # lets what was written leave before the connection goes
_TOKENS = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def faulty(fault: Fault, call: Call) -> Plan:
    """The plan of a fault.

    Args:
        fault: Which.
        call: The call it is played to.
    """
    if fault in _CONNECTION:
        return _CONNECTION[fault](completion(call, text=answer_text(call), finish_reason="stop", tokens=_TOKENS))
    if fault in _FINISHES:
        text, finish_reason = _FINISHES[fault]
        return iter([http(200, completion(call, text=text, finish_reason=finish_reason, tokens=_TOKENS))])
    if fault in _REFUSALS:
        status, error = _REFUSALS[fault]
        return iter([http(status, orjson.dumps({"error": {**error, "message": "scripted"}}))])
    return iter([_WHOLE[fault]])


def _trickle(body: bytes) -> Plan:
    yield head(200, length=len(body))
    for index in range(len(body)):
        yield body[index : index + 1]
        yield Pause(TRICKLE_SECONDS)


def _huge(_body: bytes) -> Plan:
    opening, closing = b'{"choices": [{"message": {"content": "', b'"}, "finish_reason": "stop"}]}'
    yield head(200, length=len(opening) + HUGE_BODY_BYTES + len(closing), content_type=JSON) + opening
    piece = b"x" * 65536
    for _ in range(HUGE_BODY_BYTES // len(piece)):
        yield piece
    yield closing


def _half(body: bytes) -> bytes:
    return http(200, body)[: -len(body) // 2]


_CONNECTION: dict[Fault, Callable[[bytes], Plan]] = {
    Fault.STALL_BEFORE_HEADERS: lambda _: iter([Ending.STALL]),
    Fault.STALL_MID_BODY: lambda body: iter([_half(body), Ending.STALL]),
    Fault.RESET_BEFORE_HEADERS: lambda _: iter([Ending.RESET]),
    Fault.RESET_MID_HEADERS: lambda body: iter([head(200, length=len(body))[:30], _SENT, Ending.RESET]),
    Fault.RESET_AFTER_HEADERS: lambda body: iter([head(200, length=len(body)), _SENT, Ending.RESET]),
    Fault.RESET_MID_BODY: lambda body: iter([_half(body), _SENT, Ending.RESET]),
    Fault.CLOSE_MID_BODY: lambda body: iter([_half(body), Ending.CLOSE]),
    Fault.TRICKLE: _trickle,
    Fault.HUGE_BODY: _huge,
}

_FINISHES: dict[Fault, tuple[str | None, str | None]] = {
    Fault.NULL_CONTENT: (None, "stop"),
    Fault.NO_FINISH_REASON: ("half an ans", None),
    Fault.CONTENT_REFUSED: ("", "content_filter"),
    Fault.SENSITIVE: ("", "sensitive"),
}
"""Text and finish_reason of a whole answer."""

_REFUSALS: dict[Fault, tuple[int, dict[str, str]]] = {
    Fault.DEAD_KEY: (401, {"code": "invalid_api_key", "type": "invalid_request_error"}),
    Fault.INSUFFICIENT_QUOTA: (429, {"code": "insufficient_quota", "type": "insufficient_quota"}),
    Fault.UNKNOWN_MODEL: (404, {"code": "model_not_found", "type": "invalid_request_error"}),
    Fault.CONTEXT_TOO_LONG: (400, {"code": "context_length_exceeded", "type": "invalid_request_error"}),
    Fault.ERROR_IN_200: (200, {"code": "server_error", "type": "server_error"}),
}
"""Status and error."""

_WHOLE: dict[Fault, bytes] = {
    Fault.EMPTY_BODY: http(200, b""),
    Fault.MALFORMED_JSON: http(200, b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "half'),
    Fault.WRONG_CONTENT_TYPE: http(200, b"<html><body>Welcome</body></html>", content_type="text/html"),
    Fault.EMPTY_CHOICES: http(200, b'{"id": "scripted", "object": "chat.completion", "choices": []}'),
}
