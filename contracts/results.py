"""What a finished command answers: one JSON document, stored once and sent byte for byte the same each time."""

from datetime import datetime
from enum import StrEnum, unique
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field

from contracts.envelope import Envelope
from contracts.errors import Cancelled, CommandError, Expired, Indeterminate


@unique
class State(StrEnum):
    """Where a command is in its life; the last five are terminal and never change."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    INDETERMINATE = "indeterminate"


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED, State.INDETERMINATE})


class ResultError(BaseModel):
    """Why a command did not succeed."""

    code: str = Field(description="From the closed list of wire codes.")
    message: str = Field(description="One sentence for a person.")
    retryable: bool = Field(description="Whether publishing it again, under a new id, may succeed.")
    details: dict[str, Any] = Field(default_factory=dict)


class Result(BaseModel):
    """The body of a `<kind>.result.v1` message."""

    model_config = ConfigDict(extra="forbid")

    command_id: UUID | None = Field(description="Null when the message had none, or one that is no UUID.")
    kind: str = Field(description="`unknown` when neither the message's type nor its routing key said it.")
    status: State
    output: dict[str, Any] | None = None
    error: ResultError | None = None
    attempts: int = Field(ge=0, description="Runs, counting the last; 0 when it never ran.")
    accepted_at: datetime
    started_at: datetime | None = None
    finished_at: datetime
    worker: str | None = None


def encode_result(
    envelope: Envelope,
    status: State,
    *,
    output: dict[str, Any] | None = None,
    error: CommandError | None = None,
    attempts: int,
    started_at: datetime | None,
    finished_at: datetime,
    worker: str | None,
) -> bytes:
    """The stored and published bytes of a result.

    Args:
        envelope: The command's envelope.
        status: A terminal state.
        output: What a succeeded command answers, JSON-ready.
        error: Why it did not succeed.
        attempts: Runs, counting the last.
        started_at: First run's start; None when it never ran.
        finished_at: Now.
        worker: Who finished it.

    Raises:
        TypeError: The output is not JSON-ready (a handler's bug).
    """
    document: dict[str, Any] = {"command_id": str(envelope.id), "kind": envelope.kind.name, "status": status.value}
    if output is not None:
        document["output"] = output
    if error is not None:
        document["error"] = {
            "code": error.code.value,
            "message": error.message,
            "retryable": error.retryable,
            **({"details": error.details} if error.details else {}),
        }
    document |= {
        "attempts": attempts,
        "accepted_at": envelope.accepted_at,
        "started_at": started_at,
        "finished_at": finished_at,
        "worker": worker,
    }
    return orjson.dumps(document, option=orjson.OPT_UTC_Z)


def state_of(error: CommandError) -> State:
    """The terminal state that an error leads to.

    Args:
        error: What a handler raised, when no further try is made.
    """
    if isinstance(error, Expired):
        return State.EXPIRED
    if isinstance(error, Cancelled):
        return State.CANCELLED
    if isinstance(error, Indeterminate):
        return State.INDETERMINATE
    return State.FAILED
