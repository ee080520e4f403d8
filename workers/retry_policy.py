"""When a command is tried again: a policy as data, decided without any I/O."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.errors import ErrorCode, Expired

LOCAL_WAIT_SECONDS = 2.0
"""Waits up to this stay in the worker; longer ones wait in the broker."""

_DELAYS_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0)


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again at this time."""

    at: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further try, and why."""

    expired: bool
    """True when the deadline would pass before the next try, False when the attempts are used up."""


def next_try(
    *,
    attempt: int,
    max_attempts: int,
    retry_after_seconds: float | None,
    deadline_at: datetime,
    now: datetime,
    jitter: float | None = None,
) -> Retry | GiveUp:
    """Decide what follows a transient error.

    Args:
        attempt: Runs so far, counting the one that failed; first is 1.
        max_attempts: Runs allowed.
        retry_after_seconds: What the other side asked for; never cut short.
        deadline_at: The command's deadline.
        now: The current time.
        jitter: 0 to 1, spreads the policy's own delays by up to a fifth; None draws one.
    """
    if attempt >= max_attempts:
        return GiveUp(expired=False)
    if retry_after_seconds is None:
        delay = _DELAYS_SECONDS[min(attempt, len(_DELAYS_SECONDS)) - 1]
        delay *= 1 + 0.2 * (random.random() if jitter is None else jitter)
    else:
        delay = max(retry_after_seconds, 0.1)
    at = now + timedelta(seconds=delay)
    return Retry(at) if at < deadline_at else GiveUp(expired=True)


def too_late(sentence: str, *, waited_for: str | None) -> Expired:
    """What a command ends with whose deadline passed while it waited for a try.

    Args:
        sentence: When that was noticed.
        waited_for: Code of the error that put the try off (a phone that is away, a provider without room); None for none.
    """
    if waited_for is None:
        return Expired(ErrorCode.DEADLINE_PASSED, sentence)
    return Expired(
        ErrorCode.DEADLINE_PASSED, f"{sentence}; the last error was {waited_for}", details={"last_error": waited_for}
    )
