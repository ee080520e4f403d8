"""What is asked of gates, whoever keeps them: to let a call through, and to hear how it ended."""

from dataclasses import dataclass
from typing import Literal

from workers.ai.limits.permit import WaitReason
from workers.ai.limits.scopes import Report, Scope

LEASE_SECONDS = 6.0
"""A process that has not renewed what it holds for so long has lost it."""

MARGIN_SECONDS = 0.5
"""Added to the window of requests and tokens: the provider counts when a request arrives, and one that took longer on its
way than the one that takes its place a minute later would be counted with it."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A call that wants to go out."""

    targets: tuple[tuple[Scope, ...], ...]
    """The scopes of each candidate, best first."""
    tokens: int
    """To reserve."""
    command_id: str
    pass_id: str
    room: str
    """Where it waits in this process."""
    batch: bool


@dataclass(frozen=True, slots=True)
class Granted:
    """It may."""

    place: int
    """Of the target among the candidates, first is 0."""
    probes: frozenset[str]
    """Names of scopes that it is to try out."""
    at_ms: int = 0
    """By the clock of Redis; 0 when it was granted in this process."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not now."""

    parked: bool
    """True when a return is registered, in `seconds`; else it is worth asking again after that."""
    seconds: float
    reason: WaitReason
    place: int
    """Of the target that is expected to have room first."""
    dead: bool = False
    """That target is, until a person acts."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A call that is over."""

    scopes: tuple[Scope, ...]
    command_id: str
    pass_id: str
    granted_at: float
    """When it was granted, by this process's monotonic clock."""
    granted_at_ms: int
    """By the clock of Redis; 0 when it was granted in this process."""
    report: Report


@dataclass(frozen=True, slots=True)
class Change:
    """A breaker that changed its state."""

    scope: str
    state: Literal["open", "recovering"]
    kind: str
    """Why it opened: `out`, `rate` or `dead`."""
    seconds: float
    """Until the next probe."""
