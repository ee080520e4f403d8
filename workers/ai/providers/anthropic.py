"""Anthropic's Messages API: `POST {base_url}/v1/messages`, instructions apart from the dialogue, typed events.

`base_url` is the vendor's own (`https://api.anthropic.com`); one that ends in `/v1`, as OpenAI-style addresses do,
serves as well. Sources: https://platform.claude.com/docs/en/api/errors,
https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.errors import ErrorCode, Permanent
from workers.ai.configuration import Target
from workers.ai.providers.chat_completions import count
from workers.ai.providers.dialect import Dialect, MalformedAnswer, Piece, Request
from workers.ai.providers.errors import (
    BUSY,
    FAILING,
    KEY_DEAD,
    LIMITED,
    NO_CREDIT,
    NO_MODEL,
    REFUSED,
    REJECTED,
    TIMED_OUT,
    ErrorTable,
    Scope,
    Verdict,
    error_for,
)

VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 4096
"""`max_tokens` is required there, and optional with us."""

CODES: dict[str, Verdict] = {
    "enforced_spend_limit_reached": NO_CREDIT,  # under rate_limit_error, yet it lasts until the month is over
    "credits_required": NO_CREDIT,
    "authentication_error": KEY_DEAD,
    "permission_error": KEY_DEAD,
    "billing_error": NO_CREDIT,
    "not_found_error": NO_MODEL,
    "request_too_large": REJECTED,
    "rate_limit_error": LIMITED,
    "api_error": FAILING,
    "timeout_error": TIMED_OUT,
    "overloaded_error": BUSY,
}

_PHRASES = ((re.compile(r"credit balance is too low|specified (?:workspace )?API usage limits"), NO_CREDIT),)
_UNSAYABLE = Verdict(
    Permanent, ErrorCode.PROVIDER_REJECTED, Scope.MODEL, "takes no response_format but text and json_schema"
)


def build(
    target: Target, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], *, stream: bool
) -> Request:
    """A call. See `RequestBuilder`; `seed` is left out, there is none."""
    headers = {"anthropic-version": VERSION}
    if target.api_key is not None:
        headers["x-api-key"] = target.api_key.get_secret_value()
    body: dict[str, Any] = {
        "model": target.model_name,
        "max_tokens": options.get("max_tokens", DEFAULT_MAX_TOKENS),
        "messages": [line for line in messages if line["role"] != "system"],
        **{name: options[name] for name in ("temperature", "top_p") if name in options},
    }
    instructions = [str(line["content"]) for line in messages if line["role"] == "system"]
    if instructions:
        body["system"] = "\n\n".join(instructions)
    if "stop" in options:
        body["stop_sequences"] = options["stop"]
    if (schema := _schema(target, options.get("response_format"))) is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    if stream:
        body["stream"] = True
    base_url = target.provider.base_url
    return Request(base_url + ("/messages" if base_url.endswith("/v1") else "/v1/messages"), headers, body)


def _schema(target: Target, response_format: Any) -> Any:
    """The schema of OpenAI's `{"type": "json_schema", "json_schema": {"schema": …}}`; None when text is asked for."""
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema}}:
            return schema
        case _:
            raise error_for(_UNSAYABLE, provider=target.provider_name, model=target.model_name)


def read_event(body: Any) -> Piece:
    """One event; kinds that are not known are passed over, as the vendor asks.

    Args:
        body: Its JSON.
    """
    match body:
        case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": str() as text}}:
            piece = Piece(text=text)
        case {"type": "content_block_delta", "delta": {"type": "thinking_delta"}}:
            piece = Piece(thought=True)
        case {"type": "content_block_start", "content_block": {"type": "text", "text": str() as text}}:
            piece = Piece(text=text)
        case {"type": "message_start", "message": {"usage": usage}}:
            piece = Piece(tokens_in=_tokens_in(usage))
        case {"type": "message_delta", "delta": {"stop_reason": str() | None as reason}, **rest}:
            usage = rest.get("usage")
            piece = Piece(finish_reason=reason, tokens_in=_tokens_in(usage), tokens_out=_tokens_out(usage))
        case {"type": "message_stop"}:
            piece = Piece(ends=True)
        case {"type": "ping"}:
            piece = Piece(idle=True)
        case {"type": "content_block_delta", "delta": {"type": "text_delta"}} | {"type": "message_delta"}:
            raise MalformedAnswer("an event is not of the known form")
        case {"type": str()}:
            piece = Piece()
        case _:
            raise MalformedAnswer("an event has no type")
    return piece


def read_whole(body: Any) -> Piece:
    """A whole answer: its text blocks, joined.

    Args:
        body: Its JSON.
    """
    match body:
        case {"content": list() as blocks, "stop_reason": str() | None as reason, **rest}:
            pass
        case _:
            raise MalformedAnswer("no content or no stop_reason")
    texts = [block.get("text") for block in blocks if isinstance(block, dict) and block.get("type") == "text"]
    usage = rest.get("usage")
    return Piece(
        text="".join(text for text in texts if isinstance(text, str)) if texts else None,
        finish_reason=reason,
        tokens_in=_tokens_in(usage),
        tokens_out=_tokens_out(usage),
    )


def _tokens_in(usage: Any) -> int | None:
    """What was read: `input_tokens` leaves out what went through the prompt cache."""
    if not isinstance(usage, dict) or (uncached := count(usage.get("input_tokens"))) is None:
        return None
    return uncached + sum(
        count(usage.get(name)) or 0 for name in ("cache_creation_input_tokens", "cache_read_input_tokens")
    )


def _tokens_out(usage: Any) -> int | None:
    return count(usage.get("output_tokens")) if isinstance(usage, dict) else None


ANTHROPIC = Dialect(
    errors=ErrorTable(codes=CODES, phrases=_PHRASES),
    finished={
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",  # the answer, not the question, reached the end of the window
    },
    unfinished={"refusal": REFUSED},
    build=build,
    read_event=read_event,
    read_whole=read_whole,
)
