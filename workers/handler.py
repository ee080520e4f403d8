"""What a handler gets and gives: a command in, an outcome out, with everything to be written as plain data.

A handler is `async (Command) -> Outcome`. It raises a `contracts.errors.CommandError` when the command cannot be
finished; it never acks, publishes or opens a transaction. The consume path writes what it returns in one transaction.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel

from workers.cancellation import Cancellation

Payload = TypeVar("Payload", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Command(Generic[Payload]):
    """One claimed command, as a handler sees it."""

    publisher: str
    id: UUID
    kind: str
    owner: str
    payload: Payload
    attempt: int
    """Runs so far, counting this one; first is 1."""
    accepted_at: datetime
    deadline_at: datetime
    """Finish by; the consume path cancels the handler then."""
    correlation_id: str | None = None
    traceparent: str | None = None
    calls: int = 0
    """Calls of providers that its earlier runs made."""
    cancellation: Cancellation = field(default_factory=Cancellation)
    """Whether its owner wants it stopped."""
    priority: str | None = None
    """`interactive`, `batch` or not said."""


@dataclass(frozen=True, slots=True)
class Message:
    """A line of a conversation, to be recorded (and delivered to the owner's webhook targets)."""

    conversation_id: str
    sender: str
    """`user` or `bot`."""
    text: str
    sent_at: datetime
    metadata: dict[str, Any] = field(default_factory=dict)
    deliver_to: tuple[str, ...] | None = None
    """Names of webhook targets; None means every target of the owner that matches the conversation."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A command to publish after the commit; its id is derived from its parent's, so a rerun cannot make a second."""

    kind: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A blob to store once by its sha256."""

    sha256: str
    """Lower-case hex of the content."""
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """A blob that an owner has stored, read piece by piece: it may be larger than a worker's memory."""

    size_bytes: int
    pieces: Callable[[], AsyncIterator[bytes]]
    """Its bytes from the first on, at most about 1 MiB at a time; asked for again, they begin anew."""

    @classmethod
    def of(cls, content: bytes) -> "StoredArtifact":
        """One that is in memory.

        Args:
            content: All of it.
        """

        async def pieces() -> AsyncIterator[bytes]:
            yield content

        return cls(len(content), pieces)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one attempt used, kept in the attempts ledger."""

    target: str | None = None
    """Provider and model (`local/smollm2-135m`) or device serial."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None
    calls: int = 0
    """Calls of providers that this run made."""
    details: dict[str, Any] | None = None
    """How it came about (routing decision, each call), JSON-ready; kept with the attempt."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished command: what to answer and what to record with it."""

    output: dict[str, Any]
    """JSON-ready; becomes `output` of the result."""
    messages: tuple[Message, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    follow_ups: tuple[FollowUp, ...] = ()
    usage: Usage = Usage()


Handler = Callable[[Command[Any]], Awaitable[Outcome]]
