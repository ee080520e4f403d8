"""Decides what a provider's failure means: status and code, by table, to an error of ours and what it is about.

A code in the body decides before the HTTP status does: ZAI answers 429 for a full rate, an empty account and a locked
one alike. Sources: https://docs.z.ai/api-reference/api-code,
https://platform.openai.com/docs/guides/error-codes, https://docs.perplexity.ai.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from enum import StrEnum, unique
from typing import Any

from contracts.errors import CommandError, ErrorCode, Permanent, Transient

MAX_WAIT_SECONDS = 7 * 86400.0


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
    until_reset: bool = False
    """The answer's text says when the quota is filled again."""


BUSY = Verdict(Transient, ErrorCode.PROVIDER_UNAVAILABLE, Scope.MODEL, "has this model overloaded")
LIMITED = Verdict(Transient, ErrorCode.PROVIDER_RATE_LIMITED, Scope.KEY, "limits the rate of requests")
AT_ONCE = Verdict(
    Transient, ErrorCode.PROVIDER_RATE_LIMITED, Scope.MODEL, "limits the requests at once", wait_seconds=1.0
)
QUOTA = Verdict(
    Transient,
    ErrorCode.PROVIDER_RATE_LIMITED,
    Scope.KEY,
    "has no quota left until its next reset",
    wait_seconds=3600.0,
    until_reset=True,
)
FAIR_USE = Verdict(
    Transient, ErrorCode.PROVIDER_RATE_LIMITED, Scope.KEY, "applies its fair-use policy", wait_seconds=600.0
)
FAILING = Verdict(Transient, ErrorCode.PROVIDER_UNAVAILABLE, Scope.PROVIDER, "failed")
IN_FLIGHT = Verdict(
    Transient, ErrorCode.PROVIDER_UNAVAILABLE, Scope.REQUEST, "is still at an earlier call for this", wait_seconds=5.0
)
TIMED_OUT = Verdict(Transient, ErrorCode.PROVIDER_TIMEOUT, Scope.PROVIDER, "timed out behind its own gateway")
ODD = Verdict(Transient, ErrorCode.PROVIDER_MALFORMED, Scope.PROVIDER, "put an error into a successful answer")
KEY_DEAD = Verdict(
    Permanent, ErrorCode.PROVIDER_AUTHENTICATION, Scope.KEY, "refused the API key: check the key of this provider"
)
NO_CREDIT = Verdict(
    Permanent, ErrorCode.PROVIDER_AUTHENTICATION, Scope.KEY, "has no credit or no active plan for this API key"
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

OPENAI_CODES: dict[str, Verdict] = {
    "invalid_api_key": KEY_DEAD,
    "account_deactivated": KEY_DEAD,
    "authentication_error": KEY_DEAD,
    "permission_error": KEY_DEAD,
    "insufficient_quota": NO_CREDIT,
    "credit_balance_exhausted": NO_CREDIT,
    "billing_hard_limit_reached": NO_CREDIT,
    "billing_not_active": NO_CREDIT,
    "enforced_spend_limit_reached": NO_CREDIT,
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

_ZAI_GROUPS: tuple[tuple[Verdict, tuple[int, ...]], ...] = (
    (AT_ONCE, (1302, 1303)),
    (BUSY, (1305, 1312)),
    (QUOTA, (1304, 1308, 1310)),
    (FAIR_USE, (1313,)),
    (KEY_DEAD, (1000, 1001, 1002, 1003, 1004, 1110, 1111, 1112, 1121)),
    (NO_CREDIT, (1113, 1309, 1311)),
    (REJECTED, (1210, 1212, 1213, 1214, 1215)),
    (NO_MODEL, (1211, 1220, 1221, 1222)),
    (TOO_LONG, (1261,)),
    (REFUSED, (1301,)),
    (FAILING, (500, 1120, 1200, 1230, 1234)),
    (IN_FLIGHT, (1231,)),
)
ZAI_CODES: dict[str, Verdict] = {str(code): verdict for verdict, codes in _ZAI_GROUPS for code in codes}

CODES: dict[str, dict[str, Verdict]] = {"openai": OPENAI_CODES, "perplexity": OPENAI_CODES, "zai": ZAI_CODES}
"""By dialect: what the body's `error.code`, or else its `error.type`, means."""

FINISHED = {"stop": "stop", "length": "length", "eos": "stop", "end_turn": "stop"}
"""A `finish_reason` that ends a whole answer, and the name that we give it."""

NOT_FINISHED: dict[str, Verdict] = {
    "content_filter": REFUSED,
    "sensitive": REFUSED,
    "model_context_window_exceeded": TOO_LONG,
    "model_length": TOO_LONG,
    "network_error": FAILING,
    "error": FAILING,
}

_CONTEXT_WORDS = re.compile(r"context[ _](?:length|window|size)|maximum context", re.IGNORECASE)
_RESET_TIME = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}")
_BEIJING = timezone(timedelta(hours=8))
_HTTP_ERRORS = range(400, 600)


def judge(
    *, provider: str, model: str, dialect: str, status: int, headers: Mapping[str, str], body: Any, now: datetime
) -> CommandError:
    """The error that a failed answer amounts to; the provider's own words are left out, they may quote the prompt.

    Args:
        provider: The provider's name.
        model: The model's name.
        dialect: Which table of codes applies.
        status: The HTTP status; 200 when the error came in a successful answer.
        headers: The answer's headers, by lower-case name.
        body: The parsed JSON body, or None.
        now: The time that waits are counted from.
    """
    error = _error_object(body)
    named = _names(error)
    verdict = next((CODES[dialect][name] for name in named if name in CODES[dialect]), None)
    if verdict is None:
        verdict = _by_status(_embedded_status(named) if status in range(200, 300) else status, error=error)
    details: dict[str, Any] = {"provider": provider, "model": model, "scope": verdict.scope.value, "status": status}
    if named:
        details["provider_code"] = named[0]
    if (parameter := _word(error.get("param"))) is not None:
        details["parameter"] = parameter
    if (request_id := _word(headers.get("x-request-id"))) is not None:
        details["provider_request_id"] = request_id
    what = ", ".join([f"HTTP {status}", *(f"code {name}" for name in named[:1])])
    wait = retry_after_seconds(headers, now=now)
    if wait is None and verdict.until_reset:
        wait = _until_reset(error, now=now)
    return error_for(verdict, provider=provider, what=what, details=details, wait_seconds=wait)


def error_for(
    verdict: Verdict, *, provider: str, what: str, details: dict[str, Any], wait_seconds: float | None = None
) -> CommandError:
    """The exception for a verdict.

    Args:
        verdict: What it means.
        provider: The provider's name.
        what: How the provider put it (`HTTP 429, code 1302`).
        details: Facts for programs.
        wait_seconds: The wait the provider asked for; None means the verdict's own.
    """
    sentence = f"provider {provider} {verdict.meaning} ({what})"
    if not issubclass(verdict.error, Transient):
        return Permanent(verdict.code, sentence, details=details)
    wait = verdict.wait_seconds if wait_seconds is None else wait_seconds
    return Transient(verdict.code, sentence, retry_after_seconds=wait, details=details)


def retry_after_seconds(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """The wait that `Retry-After` asks for, 0 to a week; None when it is absent or unreadable (RFC 9110, 10.2.3).

    Args:
        headers: By lower-case name.
        now: What a date is counted from.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", value):
        return min(float(value), MAX_WAIT_SECONDS)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return _seconds_until(date if date.tzinfo else date.replace(tzinfo=UTC), now=now)


def _by_status(status: int, *, error: Mapping[str, Any]) -> Verdict:
    if status in {400, 413, 422} and _CONTEXT_WORDS.search(str(error.get("message", ""))[:2000]):
        return TOO_LONG  # vLLM and others name it in words alone
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
    """The error's code and type, most telling first; what is not a plain word is left out."""
    return [word for key in ("code", "type") if (word := _word(error.get(key))) is not None]


def _word(value: Any) -> str | None:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,80}", text) else None


def _embedded_status(names: list[str]) -> int:
    """The HTTP status that some servers put in the body of a 200; 200 when there is none."""
    return next((int(name) for name in names if name.isdecimal() and int(name) in _HTTP_ERRORS), 200)


def _until_reset(error: Mapping[str, Any], *, now: datetime) -> float | None:
    found = _RESET_TIME.search(str(error.get("message", ""))[:2000])
    if found is None:
        return None
    try:
        reset = datetime.fromisoformat(found.group()).replace(tzinfo=_BEIJING)  # ZAI writes its own local time
    except ValueError:
        return None
    return _seconds_until(reset, now=now)


def _seconds_until(moment: datetime, *, now: datetime) -> float:
    return min(max((moment - now).total_seconds(), 0.0), MAX_WAIT_SECONDS)
