"""OpenAI, and every server that speaks as it does: llama.cpp, vLLM, Ollama, LM Studio, OpenRouter, Mistral, Azure.

Sources: https://platform.openai.com/docs/guides/error-codes, https://platform.openai.com/docs/guides/rate-limits.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from workers.ai.configuration import Target
from workers.ai.providers import chat_completions
from workers.ai.providers.dialect import Dialect, Request
from workers.ai.providers.errors import (
    BUSY,
    FAILING,
    KEY_DEAD,
    LIMITED,
    MAX_WAIT_SECONDS,
    NO_CREDIT,
    NO_MODEL,
    REFUSED,
    TOO_LONG,
    ErrorTable,
    Verdict,
)

CODES: dict[str, Verdict] = {
    "invalid_api_key": KEY_DEAD,
    "account_deactivated": KEY_DEAD,
    "authentication_error": KEY_DEAD,
    "permission_error": KEY_DEAD,
    "insufficient_quota": NO_CREDIT,
    "credit_balance_exhausted": NO_CREDIT,
    "billing_hard_limit_reached": NO_CREDIT,
    "billing_not_active": NO_CREDIT,
    "model_not_found": NO_MODEL,
    "model_not_available": NO_MODEL,
    "context_length_exceeded": TOO_LONG,
    "exceed_context_size_error": TOO_LONG,
    "string_above_max_length": TOO_LONG,
    "content_filter": REFUSED,
    "content_policy_violation": REFUSED,
    "server_is_overloaded": BUSY,
    "overloaded_error": BUSY,
    "slow_down": LIMITED,
    "rate_limit_exceeded": LIMITED,
    "server_error": FAILING,
}

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|h|m|s)")


def build(
    target: Target, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], *, stream: bool
) -> Request:
    """A call, with the usage asked for in a stream. See `RequestBuilder`.

    OpenAI's own newer models refuse `max_tokens`, and most other servers know nothing else.
    """
    named = dict(options)
    if "max_tokens" in named and _is_openai_itself(target.provider.base_url):
        named["max_completion_tokens"] = named.pop("max_tokens")
    if stream:
        named["stream_options"] = {"include_usage": True}
    return chat_completions.build(target, messages, named, stream=stream)


def reset_seconds(headers: Mapping[str, str], message: str, now: datetime) -> float | None:
    """When the limits that are used up are filled again, from `x-ratelimit-*`, whose times are like `6m0s` or `12ms`.

    Args:
        headers: By lower-case name.
        message: Not used.
        now: Not used: the times are durations.
    """
    del message, now
    waits = [
        _duration_seconds(headers.get(f"x-ratelimit-reset-{limit}", ""))
        for limit in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{limit}", "").strip() == "0"
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def _duration_seconds(text: str) -> float | None:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return min(sum(float(number) * _SECONDS[unit] for number, unit in parts), MAX_WAIT_SECONDS)


def _is_openai_itself(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")


OPENAI = Dialect(
    errors=ErrorTable(codes=CODES, reset_seconds=reset_seconds),
    finished={"stop": "stop", "length": "length", "eos": "stop", "end_turn": "stop"},
    unfinished={
        "content_filter": REFUSED,
        "model_length": TOO_LONG,  # Mistral's
        "error": FAILING,  # OpenRouter's
    },
    build=build,
    read_event=chat_completions.read_event,
    read_whole=chat_completions.read_whole,
)
