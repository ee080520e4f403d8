"""A delivery on its way through the consume path, and the watermark of what has been settled.

Delivery --admit--> Admitted --claim--> Claimed --handle + commit--> Finished
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from contracts.envelope import Envelope
from contracts.errors import CommandError
from contracts.results import State
from contracts.tables import CommandRow
from contracts.topology import ROUTING_KEYS
from workers.cancellation import Cancellation
from workers.handler import Command, Outcome, Usage

Key = tuple[str, UUID]
"""`(publisher, id)`: a command's identity."""


@dataclass(slots=True)
class Delivery:
    """One message as the broker handed it over."""

    tag: int
    generation: int
    """Of the channel it came on; a tag means nothing on another."""
    routing_key: str
    properties: Any
    """pamqp's `Basic.Properties`."""
    body: bytes
    received_at: float
    """`loop.time()` at its arrival."""
    redelivered: bool = False
    """Given back at least once, says the broker; only then the delivery count is its own and not the publisher's."""
    held_since: float | None = None
    """`loop.time()` at which it was first found running elsewhere."""


@dataclass(slots=True)
class Admitted:
    """A delivery whose envelope and payload have been checked."""

    delivery: Delivery
    envelope: Envelope
    payload: BaseModel
    text: str
    """The body, decoded."""
    fingerprint: bytes
    repeatable: bool
    fault: CommandError | None = None
    """Why its payload does not fit; such a command is recorded as failed, and not run."""

    @property
    def key(self) -> Key:
        """The command's identity."""
        return self.envelope.publisher, self.envelope.id

    @property
    def row(self) -> CommandRow:
        """What is recorded of it when it is new."""
        # one that comes from a wait queue carries that queue's name, which its record must not have
        key = ROUTING_KEYS.get(self.delivery.routing_key, self.delivery.routing_key)
        return CommandRow(self.envelope, self.fingerprint, key, self.text, self.repeatable)


@dataclass(slots=True)
class Claimed:
    """A command that this worker runs; the token fences everything that it writes."""

    admitted: Admitted
    day: date
    token: int
    attempt: int
    crashes: int
    started_at: datetime
    """Of its first run."""
    taken_over: bool = False
    """From a worker that died while it ran it."""
    calls: int = 0
    """Calls of providers that its earlier runs made."""
    interrupted: bool = False
    """Taken over in the middle of an effect that must not be repeated."""
    cancellation: Cancellation = field(default_factory=Cancellation)
    last_error: str | None = None
    """Code of what its last run met, or what put that off."""

    def command(self) -> Command[Any]:
        """What the handler gets."""
        envelope = self.admitted.envelope
        return Command(
            publisher=envelope.publisher,
            id=envelope.id,
            kind=envelope.kind.name,
            owner=envelope.owner,
            payload=self.admitted.payload,
            attempt=self.attempt,
            accepted_at=envelope.accepted_at,
            deadline_at=envelope.deadline_at,
            correlation_id=envelope.correlation_id,
            traceparent=envelope.traceparent,
            calls=self.calls,
            priority=envelope.priority,
            cancellation=self.cancellation,
        )


@dataclass(slots=True)
class Finished:
    """What became of one run, ready to be committed."""

    claimed: Claimed
    state: State
    """Terminal, or `retrying`."""
    run_started_at: datetime
    finished_at: datetime
    duration_seconds: float
    outcome: Outcome | None = None
    error: CommandError | None = None
    result: bytes | None = None
    """The reply's exact bytes; None while retrying."""
    retry_at: datetime | None = None
    deferred: bool = False
    """Nothing was tried: the attempt is given back."""
    dead_letter: bool = False
    follow_ups: tuple[tuple[Envelope, bytes], ...] = ()
    """Commands to publish once this is committed."""
    first_position: int = 0
    """Of its lines in the conversation; above 0 when older lines under its id are still kept."""

    @property
    def usage(self) -> Usage:
        """What the run used, whether it succeeded or not."""
        if self.outcome is not None:
            return self.outcome.usage
        spent = self.error.spent if self.error is not None else None
        return spent if isinstance(spent, Usage) else Usage()


@dataclass(slots=True)
class Watermark:
    """Which deliveries of one channel are settled, so that a run of them is acked in one frame.

    Tags start at 1 and rise by one. `settle` takes them in any order and answers up to where all are settled.
    """

    low: int = 0
    _ahead: set[int] = field(default_factory=set)

    def settle(self, tags: Iterable[int]) -> int | None:
        """Note settled tags.

        Args:
            tags: Delivery tags of this channel.

        Returns:
            The new low-water mark, to be acked with `multiple`; None when it has not moved.
        """
        before = self.low
        self._ahead.update(tags)
        while self.low + 1 in self._ahead:
            self.low += 1
            self._ahead.discard(self.low)
        return self.low if self.low != before else None
