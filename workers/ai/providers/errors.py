"""Decides what a provider's failure means: status and code, by table, to an error of ours and what it is about.

A code in the body decides before the HTTP status does: ZAI answers 429 for a full rate, an empty account and a locked
one alike. Each dialect in `workers.ai.providers` has its own table of codes; what they share is here. The provider's
own words are read but never repeated: they may quote the prompt.

Every error's `details` hold `provider`, `model`, `scope` and `begun`, and, where they apply, what a router acts on:
`cooldown_seconds`, `shrink` and `dead` (see `Verdict`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum, unique
from typing import Any

from contracts.errors import CommandError, ErrorCode, Permanent, Transient

MAX_WAIT_SECONDS = 7 * 86400.0
_MAX_MESSAGE_CHARACTERS = 2000
"""Of a provider's own words, as far as they are searched."""


@unique
class Scope(StrEnum):
    """What a failure says something about: another request, model or key may fare better."""

    REQUEST = "request"
    MODEL = "model"
    KEY = "key"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one status or code means."""

    error: type[Transient | Permanent]
    code: ErrorCode
    scope: Scope
    meaning: str
    """Completes "provider NAME …"."""
    wait_seconds: float | None = None
    """The wait it calls for when the answer names none."""
    parks: bool = False
    """Nothing within the scope works before the wait is over, even if the table names the wait: a `cooldown_seconds`."""
    shrinks: bool = False
    """Too much at once: fewer calls in flight cure it (`shrink`)."""
    dead: bool = False
    """Nothing within the scope works until a person acts (`dead`)."""


BUSY = Verdict(Transient, ErrorCode.PROVIDER_UNAVAILABLE, Scope.MODEL, "has this model overloaded")
LIMITED = Verdict(Transient, ErrorCode.PROVIDER_RATE_LIMITED, Scope.KEY, "limits the rate of requests")
FAILING = Verdict(Transient, ErrorCode.PROVIDER_UNAVAILABLE, Scope.PROVIDER, "failed")
IN_FLIGHT = Verdict(
    Transient, ErrorCode.PROVIDER_UNAVAILABLE, Scope.REQUEST, "is still at an earlier call for this", wait_seconds=5.0
)
TIMED_OUT = Verdict(Transient, ErrorCode.PROVIDER_TIMEOUT, Scope.PROVIDER, "timed out behind its own gateway")
ODD = Verdict(Transient, ErrorCode.PROVIDER_MALFORMED, Scope.PROVIDER, "put an error into a successful answer")
KEY_DEAD = Verdict(
    Permanent,
    ErrorCode.PROVIDER_AUTHENTICATION,
    Scope.KEY,
    "refused the API key: check the key of this provider",
    dead=True,
)
NO_CREDIT = Verdict(
    Permanent,
    ErrorCode.PROVIDER_AUTHENTICATION,
    Scope.KEY,
    "has no credit or no active plan for this API key",
    dead=True,
)
NO_MODEL = Verdict(
    Permanent, ErrorCode.MODEL_NOT_FOUND, Scope.MODEL, "has no such model for this key: check model and base_url"
)
REJECTED = Verdict(Permanent, ErrorCode.PROVIDER_REJECTED, Scope.REQUEST, "rejected the request")
TOO_LONG = Verdict(Permanent, ErrorCode.CONTEXT_TOO_LONG, Scope.REQUEST, "finds the dialogue too long for this model")
REFUSED = Verdict(Permanent, ErrorCode.CONTENT_REFUSED, Scope.REQUEST, "refused the content")
MOVED = Verdict(
    Permanent,
    ErrorCode.PROVIDER_REJECTED,
    Scope.PROVIDER,
    "redirects elsewhere, which is not followed: correct base_url",
)
ABSENT = Verdict(Permanent, ErrorCode.PROVIDER_REJECTED, Scope.PROVIDER, "does not serve this call: check base_url")

STATUSES: dict[int, Verdict] = {
    401: KEY_DEAD,
    402: NO_CREDIT,
    403: KEY_DEAD,
    404: NO_MODEL,
    405: ABSENT,
    408: TIMED_OUT,
    409: IN_FLIGHT,
    410: NO_MODEL,
    425: FAILING,
    429: LIMITED,
    501: ABSENT,
    504: TIMED_OUT,
    529: BUSY,
}
"""Exceptions to their hundred: 3xx is MOVED, 4xx REJECTED, 5xx FAILING."""

_TOO_LONG_WORDS = re.compile(r"context[ _](?:length|window|size)|maximum context|prompt is too long", re.IGNORECASE)
_WORDY_STATUSES = frozenset({400, 413, 422})
_HTTP_ERRORS = range(400, 600)


def _no_reset(headers: Mapping[str, str], message: str, now: datetime) -> float | None:
    del headers, message, now
    return None


@dataclass(frozen=True, slots=True)
class ErrorTable:
    """What one dialect's errors mean; what is not in it is judged by the HTTP status."""

    codes: Mapping[str, Verdict]
    """By the body's `error.code`, or else its `error.type`."""
    phrases: tuple[tuple[re.Pattern[str], Verdict], ...] = ()
    """What the text of a 400, 413 or 422 without such a code gives away."""
    reset_seconds: Callable[[Mapping[str, str], str, datetime], float | None] = field(default=_no_reset)
    """Where the dialect says when to come back, other than in Retry-After: from headers, message and now."""


def judge(
    *,
    provider: str,
    model: str,
    table: ErrorTable,
    status: int,
    headers: Mapping[str, str],
    body: Any,
    now: datetime,
    begun: bool = False,
) -> CommandError:
    """The error that a failed answer amounts to.

    Args:
        provider: The provider's name.
        model: The model's name.
        table: The dialect's own.
        status: The HTTP status; 200 when the error came in a successful answer.
        headers: The answer's headers, by lower-case name.
        body: The parsed JSON body, or None.
        now: The time that waits are counted from.
        begun: Whether text of the answer had been delivered.
    """
    error = _error_object(body)
    named = _names(error)
    message = str(error.get("message", ""))[:_MAX_MESSAGE_CHARACTERS]
    verdict = next((table.codes[name] for name in named if name in table.codes), None)
    if verdict is None:
        meant = _embedded_status(named) if status in range(200, 300) else status
        verdict = _by_phrase(table, meant, message) or _by_status(meant)
    facts: dict[str, Any] = {"status": status}
    if named:
        facts["provider_code"] = named[0]
    if (parameter := _word(error.get("param"))) is not None:
        facts["parameter"] = parameter
    if (request_id := _word(headers.get("x-request-id") or headers.get("request-id"))) is not None:
        facts["provider_request_id"] = request_id
    wait = retry_after_seconds(headers, now=now)
    if wait is None:
        wait = table.reset_seconds(headers, message, now)
    what = ", ".join([f"HTTP {status}", *(f"code {name}" for name in named[:1])])
    return error_for(verdict, provider=provider, model=model, what=what, begun=begun, wait_seconds=wait, facts=facts)


def error_for(
    verdict: Verdict,
    *,
    provider: str,
    model: str,
    what: str | None = None,
    begun: bool = False,
    wait_seconds: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Transient | Permanent:
    """The exception for a verdict.

    Args:
        verdict: What it means.
        provider: The provider's name.
        model: The model's name.
        what: How the provider put it (`HTTP 429, code 1302`).
        begun: Whether text of the answer had been delivered.
        wait_seconds: The wait the provider asked for; None means the verdict's own.
        facts: More for `details`.
    """
    details: dict[str, Any] = {
        "provider": provider,
        "model": model,
        "scope": verdict.scope.value,
        "begun": begun,
        **(facts or {}),
    }
    if verdict.shrinks:
        details["shrink"] = True
    if verdict.dead:
        details["dead"] = True
    sentence = f"provider {provider} {verdict.meaning}" + (f" ({what})" if what else "")
    if not issubclass(verdict.error, Transient):
        return Permanent(verdict.code, sentence, details=details)
    cooldown = verdict.wait_seconds if wait_seconds is None and verdict.parks else wait_seconds
    if cooldown is not None and verdict.scope is not Scope.REQUEST:
        details["cooldown_seconds"] = cooldown
    wait = verdict.wait_seconds if wait_seconds is None else wait_seconds
    return Transient(verdict.code, sentence, retry_after_seconds=wait, details=details)


def is_error(body: Any) -> bool:
    """Whether a successful answer's body, or an event of it, is an error.

    That is `{"error": …}`, or the bare `{"code": …, "msg": …}` that ZAI and others write.

    Args:
        body: Parsed JSON.
    """
    return isinstance(body, dict) and bool(body.get("error") or ("code" in body and "choices" not in body))


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """The wait that `Retry-After` asks for, 0 to a week; None when it is absent or unreadable (RFC 9110, 10.2.3).

    Args:
        headers: By lower-case name; `retry-after-ms`, which OpenAI's own clients prefer, counts too.
        now: What a date is counted from.
    """
    milliseconds, value = headers.get("retry-after-ms", "").strip(), headers.get("retry-after", "").strip()
    if _is_number(milliseconds):
        return min(float(milliseconds) / 1000, MAX_WAIT_SECONDS)
    if _is_number(value):
        return min(float(value), MAX_WAIT_SECONDS)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return seconds_until(date if date.tzinfo else date.replace(tzinfo=UTC), now=now)


def seconds_until(moment: datetime, *, now: datetime) -> float:
    """The wait until then, 0 to a week.

    Args:
        moment: With a time zone.
        now: What it is counted from.
    """
    return min(max((moment - now).total_seconds(), 0.0), MAX_WAIT_SECONDS)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text) is not None


def _by_phrase(table: ErrorTable, status: int, message: str) -> Verdict | None:
    if status not in _WORDY_STATUSES:
        return None
    phrases = (*table.phrases, (_TOO_LONG_WORDS, TOO_LONG))  # vLLM and others name this in words alone
    return next((verdict for words, verdict in phrases if words.search(message)), None)


def _by_status(status: int) -> Verdict:
    if status in STATUSES:
        return STATUSES[status]
    match status // 100:
        case 3:
            return MOVED
        case 4:
            return REJECTED
        case 5:
            return FAILING
        case _:
            return ODD


def _error_object(body: Any) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _names(error: Mapping[str, Any]) -> list[str]:
    """The error's codes and type, most telling first; what is not a plain word is left out."""
    more = error.get("details")
    finer = more.get("error_code") if isinstance(more, dict) else None  # Anthropic's
    return [word for name in (finer, error.get("code"), error.get("type")) if (word := _word(name)) is not None]


def _word(value: Any) -> str | None:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,80}", text) else None


def _embedded_status(names: list[str]) -> int:
    """The HTTP status that some servers put in the body of a 200; 200 when there is none."""
    return next((int(name) for name in names if name.isdecimal() and int(name) in _HTTP_ERRORS), 200)
