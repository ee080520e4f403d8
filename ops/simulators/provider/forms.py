"""What the answers of each vendor look like: OpenAI, ZAI, Perplexity and Anthropic, whole and as events.

The path chooses: `/zai/…` and `/perplexity/…` are answered in their form, `…/messages` in Anthropic's.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from typing_extensions import override

from ops.simulators.provider.scripts import Call, Fault

Refusal = tuple[int, dict[str, Any]]
"""Status and error."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer to be sent, whole or word by word."""

    call: Call
    words: list[str]
    """Each but the first with the space before it."""
    tokens_in: int

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.words)

    @property
    def tokens_out(self) -> int:
        """A token is a word here."""
        return len(self.words)


class Form(ABC):
    """One vendor's way to say things."""

    content_refused: ClassVar[str] = "content_filter"
    """Its finish reason for content that it refuses to finish."""
    refusals: ClassVar[Mapping[Fault, Refusal]] = {
        Fault.DEAD_KEY: (401, {"code": "invalid_api_key", "type": "invalid_request_error"}),
        Fault.INSUFFICIENT_QUOTA: (429, {"code": "insufficient_quota", "type": "insufficient_quota"}),
        Fault.UNKNOWN_MODEL: (404, {"code": "model_not_found", "type": "invalid_request_error"}),
        Fault.CONTEXT_TOO_LONG: (400, {"code": "context_length_exceeded", "type": "invalid_request_error"}),
    }
    failure: ClassVar[dict[str, Any]] = {"code": "server_error", "type": "server_error", "message": "scripted"}
    """Its error for a failure of its own."""

    @abstractmethod
    def whole(self, draft: Draft, *, text: str | None, finish_reason: str | None) -> bytes:
        """An answer in one piece."""

    @abstractmethod
    def without_choices(self, draft: Draft) -> bytes:
        """An answer in one piece that holds none."""

    @abstractmethod
    def opening(self, draft: Draft) -> bytes:
        """The events before the first word."""

    @abstractmethod
    def word(self, draft: Draft, text: str) -> bytes:
        """The event for one word."""

    @abstractmethod
    def closing(self, draft: Draft, finish_reason: str) -> bytes:
        """The events that say why it ends, and the usage."""

    @abstractmethod
    def done(self) -> bytes:
        """What ends a stream; some vendors say nothing."""

    def ping(self) -> bytes:
        """What keeps a stream open."""
        return b": keep-alive\n\n"

    def error(self, error: Mapping[str, Any]) -> bytes:
        """A body that is an error."""
        return orjson.dumps({"error": {key: value for key, value in error.items() if value is not None}})

    def error_event(self, error: Mapping[str, Any]) -> bytes:
        """The same in a stream."""
        return event(self.error(error))


class OpenAiForm(Form):
    """`chat.completion` and its chunks."""

    kind: ClassVar[dict[str, str]] = {"object": "chat.completion.chunk"}

    @override
    def whole(self, draft: Draft, *, text: str | None, finish_reason: str | None) -> bytes:
        message = {"role": "assistant", "content": text, **self.reasoning()}
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        return self._body(draft, [choice])

    @override
    def without_choices(self, draft: Draft) -> bytes:
        return self._body(draft, [])

    def _body(self, draft: Draft, choices: list[Any]) -> bytes:
        fields = {"object": "chat.completion", "choices": choices, "usage": usage(draft), **self.beside(draft)}
        return orjson.dumps({**self._identity(draft), **fields})

    @override
    def opening(self, draft: Draft) -> bytes:
        return self.delta(draft, {"role": "assistant"})

    @override
    def word(self, draft: Draft, text: str) -> bytes:
        return self.delta(draft, {"content": text})

    @override
    def closing(self, draft: Draft, finish_reason: str) -> bytes:
        return self.delta(draft, {}, finish_reason=finish_reason) + self.chunk(draft, choices=[], usage=usage(draft))

    @override
    def done(self) -> bytes:
        return event(b"[DONE]")

    def reasoning(self) -> dict[str, str]:
        """What stands beside `content`."""
        return {}

    def beside(self, draft: Draft) -> dict[str, Any]:
        """What stands beside `choices`."""
        del draft
        return {}

    def delta(self, draft: Draft, delta: dict[str, Any], *, finish_reason: str | None = None, **rest: Any) -> bytes:
        """One chunk with a choice in it."""
        return self.chunk(draft, choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}], **rest)

    def chunk(self, draft: Draft, **fields: Any) -> bytes:
        """One chunk."""
        return event(orjson.dumps({**self._identity(draft), **self.kind, **self.beside(draft), **fields}))

    def _identity(self, draft: Draft) -> dict[str, Any]:
        return {"id": f"scripted-{draft.call.command_id}", "created": 0, "model": draft.call.model}


class ZaiForm(OpenAiForm):
    """Chunks without `object`, reasoning before the text, the usage on the last one; codes of its own."""

    kind: ClassVar[dict[str, str]] = {}
    content_refused = "sensitive"
    refusals: ClassVar[Mapping[Fault, Refusal]] = {
        Fault.DEAD_KEY: (401, {"code": "1000"}),
        Fault.INSUFFICIENT_QUOTA: (429, {"code": "1113"}),
        Fault.UNKNOWN_MODEL: (400, {"code": "1211"}),
        Fault.CONTEXT_TOO_LONG: (400, {"code": "1261"}),
    }
    failure: ClassVar[dict[str, Any]] = {"code": "1234", "message": "scripted"}

    @override
    def reasoning(self) -> dict[str, str]:
        return {"reasoning_content": "scripted thoughts"}

    @override
    def opening(self, draft: Draft) -> bytes:
        return self.delta(draft, {"role": "assistant", "reasoning_content": "scripted thoughts"})

    @override
    def closing(self, draft: Draft, finish_reason: str) -> bytes:
        return self.delta(draft, {}, finish_reason=finish_reason, usage=usage(draft))


class PerplexityForm(OpenAiForm):
    """Citations and search results in every chunk, and no `[DONE]`."""

    SOURCES: ClassVar[list[dict[str, str]]] = [
        {"title": "Scripted", "url": "https://example.com/scripted", "date": "2026-05-01", "snippet": "not kept"},
        {"title": "Second", "url": "https://example.com/second"},
    ]
    failure: ClassVar[dict[str, Any]] = {"code": 500, "type": "server_error", "message": "scripted"}

    @override
    def beside(self, draft: Draft) -> dict[str, Any]:
        return {"citations": [source["url"] for source in self.SOURCES], "search_results": self.SOURCES}

    @override
    def closing(self, draft: Draft, finish_reason: str) -> bytes:
        return self.delta(draft, {}, finish_reason=finish_reason, usage=usage(draft))

    @override
    def done(self) -> bytes:
        return b""


class AnthropicForm(Form):
    """A `message` and its typed events."""

    content_refused = "refusal"
    refusals: ClassVar[Mapping[Fault, Refusal]] = {
        Fault.DEAD_KEY: (401, {"type": "authentication_error"}),
        Fault.INSUFFICIENT_QUOTA: (429, {"type": "rate_limit_error", "code": "enforced_spend_limit_reached"}),
        Fault.UNKNOWN_MODEL: (404, {"type": "not_found_error"}),
        Fault.CONTEXT_TOO_LONG: (
            400,
            {"type": "invalid_request_error", "message": "prompt is too long: 3 tokens > 2 maximum"},
        ),
    }
    failure: ClassVar[dict[str, Any]] = {"type": "api_error", "message": "scripted"}
    _reasons: ClassVar[dict[str, str]] = {"stop": "end_turn", "length": "max_tokens"}

    @override
    def whole(self, draft: Draft, *, text: str | None, finish_reason: str | None) -> bytes:
        content = [] if text is None else [{"type": "text", "text": text}]
        reason = None if finish_reason is None else self._reasons.get(finish_reason, finish_reason)
        counts = {"input_tokens": draft.tokens_in, "output_tokens": draft.tokens_out}
        fields = {"content": content, "stop_reason": reason, "stop_sequence": None, "usage": counts}
        return orjson.dumps({**self._identity(draft), **fields})

    @override
    def without_choices(self, draft: Draft) -> bytes:
        return orjson.dumps(self._identity(draft))

    @override
    def opening(self, draft: Draft) -> bytes:
        counts = {"input_tokens": draft.tokens_in, "output_tokens": 1}
        message = {**self._identity(draft), "content": [], "stop_reason": None, "usage": counts}
        return self._event("message_start", message=message) + self.ping()

    @override
    def word(self, draft: Draft, text: str) -> bytes:
        return self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    @override
    def closing(self, draft: Draft, finish_reason: str) -> bytes:
        delta = {"stop_reason": self._reasons.get(finish_reason, finish_reason), "stop_sequence": None}
        return self._event("content_block_stop", index=0) + self._event(
            "message_delta", delta=delta, usage={"output_tokens": draft.tokens_out}
        )

    @override
    def done(self) -> bytes:
        return self._event("message_stop")

    @override
    def ping(self) -> bytes:
        return self._event("ping")

    @override
    def error(self, error: Mapping[str, Any]) -> bytes:
        named = {key: error[key] for key in ("type", "message") if error.get(key) is not None}
        if error.get("code") is not None:
            named["details"] = {"error_code": error["code"]}
        return orjson.dumps({"type": "error", "error": named, "request_id": "req_scripted"})

    @override
    def error_event(self, error: Mapping[str, Any]) -> bytes:
        return event(self.error(error), name="error")

    def _event(self, kind: str, **fields: Any) -> bytes:
        return event(orjson.dumps({"type": kind, **fields}), name=kind)

    def _identity(self, draft: Draft) -> dict[str, Any]:
        return {
            "id": f"msg_{draft.call.command_id}",
            "type": "message",
            "role": "assistant",
            "model": draft.call.model,
        }


_BY_FIRST_STEP: dict[str, Form] = {"zai": ZaiForm(), "perplexity": PerplexityForm()}
_OPENAI, _ANTHROPIC = OpenAiForm(), AnthropicForm()


def form_of(path: str) -> Form:
    """The form that a request's path asks for.

    Args:
        path: Such as `/zai/v4/chat/completions`.
    """
    if path.endswith("/messages"):
        return _ANTHROPIC
    return _BY_FIRST_STEP.get(path.lstrip("/").partition("/")[0], _OPENAI)


def usage(draft: Draft) -> dict[str, int]:
    """Tokens in OpenAI's words."""
    total = draft.tokens_in + draft.tokens_out
    return {"prompt_tokens": draft.tokens_in, "completion_tokens": draft.tokens_out, "total_tokens": total}


def event(data: bytes, *, name: str = "") -> bytes:
    """One server-sent event."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"
