"""How a command is shown: one JSON document, the same for whoever accepted it, reads it, lists it or cancels it."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, Field

from contracts.results import Result, State
from gateway.services.waiting_for import WaitingFor

_OPTIONS = orjson.OPT_UTC_Z


class Links(BaseModel):
    """Where to go from here."""

    self: str = Field(description="GET reads the command, DELETE cancels it.")
    events: str = Field(description="GET follows it while it runs (server-sent events).")


class CommandSummary(BaseModel):
    """A command without its result."""

    id: UUID
    message_id: UUID = Field(description="The same as `id`: the AMQP message_id.")
    kind: str
    status: State
    accepted_at: datetime
    deadline_at: datetime
    links: Links


class AcceptedCommand(CommandSummary):
    """What a POST answers; `result` only when it was waited for and came in time."""

    result: Result | None = None


class Attempt(BaseModel):
    """One run of a command."""

    attempt: int = Field(description="First is 1.")
    worker: str
    target: str | None = Field(description="Provider and model, or the device's serial number.")
    started_at: datetime
    duration_seconds: float
    outcome: str
    error: dict[str, str | None] | None = Field(description="`code` and `message`.")
    tokens_in: int | None = Field(description="Of the prompt, as the provider counted them.")
    tokens_out: int | None = Field(description="Of the answer, as the provider counted them.")
    cost_usd: float | None = Field(description="By the configured prices; null when one is not known.")
    details: dict[str, Any] | None = Field(
        description="How it came about: the routing decision (`route`) and each call of a provider (`calls`)."
    )


class CommandView(CommandSummary):
    """Everything about a command but its payload."""

    owner: str
    correlation_id: str | None
    started_at: datetime | None
    finished_at: datetime | None
    retry_at: datetime | None = Field(description="When the next run is due.")
    cancel_requested_at: datetime | None = Field(description="When its owner asked for it to be stopped while it ran.")
    waiting_for: WaitingFor | None = Field(description="Why it does not run now; null when it runs or has ended.")
    attempts: list[Attempt] = Field(description="Runs that are over; a relay that succeeds at once lists none.")
    result: Result | None = Field(description="As it was published, byte for byte.")


class ListedCommand(CommandSummary):
    """A command in a list."""

    started_at: datetime | None
    finished_at: datetime | None
    error_code: str | None


class CommandPage(BaseModel):
    """Some commands, newest first."""

    items: list[ListedCommand]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


def location(command_id: UUID) -> str:
    """Where a command is read.

    Args:
        command_id: The command.
    """
    return f"/api/commands/{command_id}"


def summary(
    command_id: UUID, kind: str, status: str, *, accepted_at: datetime, deadline_at: datetime, **more: Any
) -> dict[str, Any]:
    """What every view of a command begins with.

    Args:
        command_id: The command.
        kind: Its kind.
        status: Its state.
        accepted_at: When it was accepted.
        deadline_at: When it expires.
        more: Further members.
    """
    name = str(command_id)
    return {
        "id": name,
        "message_id": name,
        "kind": kind,
        "status": status,
        "accepted_at": accepted_at,
        "deadline_at": deadline_at,
        **more,
        "links": {"self": f"/api/commands/{name}", "events": f"/api/commands/{name}/events"},
    }


def stored(text: str | bytes | None) -> orjson.Fragment | None:
    """JSON that is stored as text, to be put into a document as it is.

    Args:
        text: One JSON document; None stays None.
    """
    return None if text is None else orjson.Fragment(text)


def encode(document: dict[str, Any]) -> bytes:
    """The bytes of a document.

    Args:
        document: JSON-ready, times included.
    """
    return orjson.dumps(document, option=_OPTIONS)
