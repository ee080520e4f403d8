"""Bodies of chat completions in OpenAI's form: whole, and as server-sent events."""

import hashlib
from typing import Any

import orjson

from ops.scripted_provider.scripts import Call
from ops.scripted_provider.wire import Plan


def answer_text(call: Call) -> str:
    """The good answer: the same question always gets the same one."""
    digest = hashlib.sha256(call.question.encode()).hexdigest()[:12]
    return f"[{digest}] {call.question}"


def usage(messages: list[dict[str, Any]], text: str) -> dict[str, int]:
    """Tokens in and out; a token is a word here."""
    tokens_in = sum(len(str(message.get("content", "")).split()) for message in messages)
    tokens_out = len(text.split())
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


def completion(call: Call, *, text: str | None, finish_reason: str | None, tokens: dict[str, int]) -> bytes:
    """A whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    kind = {"object": "chat.completion", "choices": [choice], "usage": tokens}
    return orjson.dumps({"id": f"scripted-{call.command_id}", "created": 0, "model": call.model, **kind})


def events(call: Call, *, text: str, finish_reason: str, tokens: dict[str, int]) -> Plan:
    """The same answer word by word."""
    yield (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    for index, word in enumerate(text.split(" ")):
        delta = {"content": word if index == 0 else f" {word}"}
        yield _event(call, choices=[{"index": 0, "delta": delta, "finish_reason": None}])
    yield _event(call, choices=[{"index": 0, "delta": {}, "finish_reason": finish_reason}])
    yield _event(call, choices=[], usage=tokens)
    yield _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _event(call: Call, **fields: Any) -> bytes:
    kind = {"object": "chat.completion.chunk", **fields}
    event = {"id": f"scripted-{call.command_id}", "created": 0, "model": call.model, **kind}
    return _chunk(b"data: " + orjson.dumps(event) + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
