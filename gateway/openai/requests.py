"""Turns a body of `POST /v1/chat/completions` into the payload of an `ai.send`, or says which parameter is wrong.

What the dialect has and this product has not is refused by name, never ignored; its neutral value is taken, since SDKs
and frameworks send those.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from contracts.ai.chat import AiSend
from contracts.commands import problems_of
from gateway.http.problems import Problem, ProblemType

_PASSED = ("temperature", "top_p", "seed", "stop", "stream")
_OURS = ("provider", "conversation_id", "cache", "capabilities", "timeout_seconds")
"""Extras of ours, as an SDK's `extra_body` sends them."""
_READ_HERE = (
    "messages",
    "model",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "stream_options",
    "service_tier",
    "metadata",
    "user",
)
_HINTS = ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier")
"""They change nothing of the answer."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Parameters that are not supported, with the values that ask for nothing; null is one for each."""
_MESSAGE_NEUTRAL = ("annotations", "audio", "function_call", "name", "reasoning_content", "refusal", "tool_calls")
"""What an assistant's message of an earlier answer may carry, empty."""
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TIERS = {"auto": None, "default": None, "flex": "batch", "priority": "interactive"}
_INDEX = re.compile(r"\.(\d+)(?=\.|$)")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is asked."""

    payload: AiSend
    model: str
    """As it was named."""
    include_usage: bool
    """A stream ends with the counts of tokens."""
    priority: str | None
    """Of the service tier."""


def read_request(body: bytes) -> ChatRequest:
    """Check a request.

    Args:
        body: As it came.

    Raises:
        Problem: It is not JSON, or a parameter does not fit; it is named.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Problem(ProblemType.INVALID_REQUEST, "The body is not JSON.") from None
    if not isinstance(document, dict):
        raise Problem(ProblemType.INVALID_REQUEST, "The body must be a JSON object.")
    given = {name: value for name, value in document.items() if value is not None}
    _refuse_what_is_not_supported(given)
    model = given.get("model", "")
    if not isinstance(model, str):
        raise wrong("model", "must be a string")
    metadata = _metadata(given)
    fields = {
        **{name: given[name] for name in (*_PASSED, *_OURS) if name in given},
        **({"model": model} if model else {}),
        **_answer_tokens(given),
        **_response_format(given),
        **({"metadata": metadata} if metadata else {}),
        "messages": _messages(given.get("messages")),
    }
    return ChatRequest(
        payload=_payload(fields),
        model=model or "default",
        include_usage=_include_usage(given),
        priority=_priority(given),
    )


def wrong(param: str, rule: str, *, code: str = "invalid_value") -> Problem:
    """A parameter that is not as it must be.

    Args:
        param: Its name, such as `messages[0].role`.
        rule: What it must be, or why it is refused.
        code: OpenAI's word for it.
    """
    return Problem(
        ProblemType.INVALID_REQUEST,
        f"{param}: {rule}",
        errors=[{"field": param, "rule": rule}],
        members={"code": code},
    )


def _refuse_what_is_not_supported(given: dict[str, Any]) -> None:
    known = {*_PASSED, *_OURS, *_READ_HERE, *_HINTS}
    for name, value in given.items():
        if name in _NEUTRAL:
            if value not in _NEUTRAL[name]:
                raise wrong(name, "is not supported here", code="unsupported_parameter")
        elif name not in known:
            raise wrong(name[:64], "is not a parameter of this request", code="unknown_parameter")


def _messages(messages: Any) -> list[dict[str, Any]]:
    if messages is None:
        raise wrong("messages", "is required", code="missing_required_parameter")
    if not isinstance(messages, list):
        raise wrong("messages", "must be an array")
    return [_message(message, f"messages[{position}]") for position, message in enumerate(messages)]


def _message(message: Any, place: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise wrong(place, "must be an object")
    for name, value in message.items():
        if name not in {"role", "content", *_MESSAGE_NEUTRAL}:
            raise wrong(f"{place}.{name[:64]}", "is not a member of a message", code="unknown_parameter")
        if name in _MESSAGE_NEUTRAL and value:
            raise wrong(f"{place}.{name}", "is not supported here", code="unsupported_parameter")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{place}.role", f"must be one of {', '.join(_ROLES)}: tools are not supported here")
    return {"role": _ROLES[role], "content": _content(message.get("content"), f"{place}.content")}


def _content(content: Any, place: str) -> Any:
    """Text as it is; parts of text as paragraphs of one."""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for position, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise wrong(f"{place}[{position}]", "must be a part of type text", code="unsupported_parameter")
        texts.append(part["text"])
    return "\n".join(texts)


def _answer_tokens(given: dict[str, Any]) -> dict[str, Any]:
    values = [given[name] for name in ("max_completion_tokens", "max_tokens") if name in given]
    if len(values) > 1 and values[0] != values[1]:
        raise wrong("max_tokens", "give either max_completion_tokens or max_tokens, not both")
    return {"max_tokens": values[0]} if values else {}


def _response_format(given: dict[str, Any]) -> dict[str, Any]:
    wanted = given.get("response_format")
    if wanted is None or wanted == {"type": "text"}:
        return {}
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        raise wrong("response_format", "type must be one of text, json_object, json_schema")
    return {"response_format": wanted}


def _metadata(given: dict[str, Any]) -> dict[str, Any]:
    metadata, user = given.get("metadata", {}), given.get("user")
    if not isinstance(metadata, dict):
        raise wrong("metadata", "must be an object")
    if user is not None and not isinstance(user, str):
        raise wrong("user", "must be a string")
    return metadata if user is None else {**metadata, "user": user}


def _include_usage(given: dict[str, Any]) -> bool:
    options = given.get("stream_options", {})
    if options and given.get("stream") is not True:
        raise wrong("stream_options", "is only allowed with stream")
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool):
        raise wrong("stream_options", "must be an object; include_usage is true or false")
    for name, value in options.items():
        if name != "include_usage" and value not in (None, False):
            raise wrong(f"stream_options.{name[:64]}", "is not supported here", code="unsupported_parameter")
    return bool(options.get("include_usage"))


def _priority(given: dict[str, Any]) -> str | None:
    tier = given.get("service_tier", "auto")
    if not isinstance(tier, str) or tier not in _TIERS:
        raise wrong("service_tier", f"must be one of {', '.join(_TIERS)}")
    return _TIERS[tier]


def _payload(fields: dict[str, Any]) -> AiSend:
    try:
        return AiSend.model_validate(fields)
    except ValidationError as error:
        first = problems_of(error, fields)[0]
    if first["field"] == "model":
        # no configuration can hold such a name
        raise Problem(
            ProblemType.NOT_FOUND,
            f"The model {fields['model'][:64]!r} does not exist.",
            errors=[{"field": "model", "rule": "must exist"}],
            members={"code": "model_not_found"},
        )
    raise wrong(_INDEX.sub(r"[\1]", first["field"]) or "messages", first["rule"])
