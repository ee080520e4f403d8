"""What limits and failures are about: a provider, a model of it, a key; and what the end of a call says about each."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from contracts.errors import CommandError, ErrorCode, Permanent
from workers.ai.configuration import Target
from workers.ai.limits.permit import Failed, Result, Served, Unknown, Unused

Role = Literal["provider", "model", "key"]
Verdict = Literal["ok", "fail", "alive", "unknown"]
"""`alive`: it answered, if only with an error that is about something else; `unknown`: the call does not tell."""

_LINGER_SECONDS = 0.5
"""How long a call that was given up still counts: its provider learns of it later than we do."""

_COUNTED = frozenset(
    {
        ErrorCode.PROVIDER_UNAVAILABLE,
        ErrorCode.PROVIDER_TIMEOUT,
        ErrorCode.PROVIDER_MALFORMED,
        ErrorCode.PROVIDER_INCOMPLETE,
    }
)
_NEEDS_A_PERSON = frozenset({ErrorCode.MODEL_NOT_FOUND, ErrorCode.PROVIDER_REJECTED})
"""Permanent, and about more than the request: a model that is not there, an address that serves no calls."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One thing that has limits and a breaker of its own; 0 is no limit."""

    name: str
    """`provider:zai`, `model:zai/glm-4-flash`, `key:` and a hash."""
    role: Role
    in_flight: int
    requests: int
    """In any minute, as `tokens`."""
    tokens: int


@dataclass(frozen=True, slots=True)
class Report:
    """What the end of a call says."""

    verdicts: Mapping[Role, Verdict]
    seconds: float = 0.0
    """Duration of a call that was served."""
    tokens: int | None = None
    """Used; None leaves the reservation as it is."""
    linger_seconds: float = 0.0
    """How long the call still counts as in flight."""
    unused: bool = False
    """No call was made."""
    about: Role | None = None
    """What the following is about."""
    cooldown_seconds: float = 0.0
    limited: bool = False
    """A rate limit that does not say for how long."""
    shrink: bool = False
    """There were too many calls at once."""
    dead: bool = False
    """Nothing works there until a person acts."""


def scopes_of(target: Target) -> tuple[Scope, ...]:
    """A target's scopes.

    The limits of a provider's table count for the table and, where it has a key, for the key: an account that two tables
    share is not asked for twice its limits. A key is another one at another server.

    Args:
        target: Where a call would go.
    """
    provider, model = target.provider, target.model
    limits = (provider.max_in_flight or 0, provider.requests_per_minute or 0, provider.tokens_per_minute or 0)
    own_limits = (model.max_in_flight or 0, model.requests_per_minute or 0, model.tokens_per_minute or 0)
    scopes = [
        Scope(f"provider:{target.provider_name}", "provider", *limits),
        Scope(f"model:{target.name}", "model", *own_limits),
    ]
    if target.api_key is not None:
        identity = f"{urlsplit(provider.base_url).netloc} {target.api_key.get_secret_value()}"
        scopes.append(Scope(f"key:{sha256(identity.encode()).hexdigest()[:16]}", "key", *limits))
    return tuple(scopes)


def report(result: Result, scopes: tuple[Scope, ...]) -> Report:
    """What the end of a call says about each of its scopes.

    Args:
        result: How it ended.
        scopes: Of its target.
    """
    match result:
        case Served(tokens=tokens, seconds=seconds):
            return Report(_all(scopes, "ok"), seconds=seconds, tokens=tokens)
        case Unknown():
            return Report(_all(scopes, "unknown"), linger_seconds=_LINGER_SECONDS)
        case Unused():
            return Report(_all(scopes, "unknown"), unused=True)
        case Failed(error=error):
            return _of_error(error, scopes)


def _of_error(error: CommandError, scopes: tuple[Scope, ...]) -> Report:
    tokens = None if error.details.get("begun") else 0
    about = _about(error, scopes)
    if about is None:
        return Report(_all(scopes, "alive"), tokens=tokens)
    verdicts: dict[Role, Verdict] = {scope.role: "unknown" for scope in scopes}
    if about != "provider":
        verdicts["provider"] = "alive"
    if error.code in _COUNTED:
        verdicts[about] = "fail"
    elif error.code is ErrorCode.PROVIDER_RATE_LIMITED:
        verdicts[about] = "alive"
    shrink = bool(error.details.get("shrink"))
    cooldown = error.details.get("cooldown_seconds")
    return Report(
        MappingProxyType(verdicts),
        tokens=tokens,
        about=about,
        cooldown_seconds=float(cooldown or 0),
        limited=error.code is ErrorCode.PROVIDER_RATE_LIMITED and cooldown is None and not shrink,
        shrink=shrink,
        dead=bool(error.details.get("dead")) or (isinstance(error, Permanent) and error.code in _NEEDS_A_PERSON),
    )


def _about(error: CommandError, scopes: tuple[Scope, ...]) -> Role | None:
    """The scope that an error is about; None when it is about the request alone."""
    match error.details.get("scope"):
        case "model":
            return "model"
        case "key":
            return "key" if any(scope.role == "key" for scope in scopes) else "provider"
        case "provider":
            return "provider"
        case _:
            return None


def _all(scopes: tuple[Scope, ...], verdict: Verdict) -> Mapping[Role, Verdict]:
    return MappingProxyType({scope.role: verdict for scope in scopes})
