"""Routes that read, list and cancel commands."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response

from contracts.commands import KINDS, decode_payload, stoppable
from contracts.errors import ErrorCode, Permanent
from contracts.ledger import end_command
from contracts.results import TERMINAL, State
from contracts.tables import CommandRow
from gateway import PUBLISHER
from gateway.container import Parts
from gateway.dependencies import Owner, PartsOf
from gateway.http.cursors import decode_cursor, encode_cursor
from gateway.http.problems import Problem, ProblemType, storage_away
from gateway.http.request import MAX_WAIT_SECONDS, headers_of, wait_seconds
from gateway.services import command_rows
from gateway.services.database import DatabaseAway
from gateway.services.result_waiters import within
from gateway.services.views import CommandPage, CommandView, encode, stored, summary

router = APIRouter(tags=["commands"])

_CANCEL_SECONDS = 2.0
_CANCEL_TRIES = 3
"""Its worker may claim it or put it off just then."""
_MAX_PAGE = 200
_NEWEST = (datetime(9999, 1, 1, tzinfo=UTC), UUID(int=0))

CommandId = Annotated[UUID, Path(description="The `id` that the POST answered, or the `message_id` of a publish.")]
KindName = Literal["relay", "ai.send", "android.execute"]


@router.get("/api/commands/{command_id}", responses={200: {"model": CommandView}})
async def read_command(
    request: Request,
    parts: PartsOf,
    owner: Owner,
    command_id: CommandId,
    wait: Annotated[
        int, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for its end; also as `Prefer: wait=N`.")
    ] = 0,
) -> Response:
    """A command with its attempts and, when it has finished, its result."""
    del wait  # read together with Prefer
    seconds = wait_seconds(headers_of(request.scope), request.scope["query_string"])
    view = await parts.cache.get(owner, command_id)
    if view is None:
        view = await _read(parts, owner, command_id, seconds)
    return _json(view)


@router.get("/api/commands", responses={200: {"model": CommandPage}})
async def list_commands(  # noqa: PLR0917  # FastAPI calls it by name
    parts: PartsOf,
    owner: Owner,
    kind: Annotated[KindName | None, Query(description="Only these.")] = None,
    status: Annotated[State | None, Query(description="Only these.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Your commands, newest first."""
    after = decode_cursor(cursor)[:2] if cursor is not None else _NEWEST
    try:
        rows = await command_rows.page(parts.database, owner, after=after, kind=kind, state=status, limit=limit + 1)
    except DatabaseAway:
        raise storage_away() from None
    shown = rows[:limit]
    items = [
        summary(
            row["id"],
            row["kind"],
            row["state"],
            accepted_at=row["accepted_at"],
            deadline_at=row["deadline_at"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            error_code=row["error_code"],
        )
        for row in shown
    ]
    more = len(rows) > limit
    return _json(
        encode(
            {"items": items, "next_cursor": encode_cursor(shown[-1]["accepted_at"], shown[-1]["id"]) if more else None}
        )
    )


@router.delete(
    "/api/commands/{command_id}",
    responses={
        200: {"model": CommandView, "description": "It is cancelled."},
        202: {"model": CommandView, "description": "It runs; its worker stops it within seconds."},
        409: {"description": "It has ended, or it does what cannot be stopped."},
    },
)
async def cancel_command(
    request: Request,
    parts: PartsOf,
    owner: Owner,
    command_id: CommandId,
    wait: Annotated[
        int, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for its end; also as `Prefer: wait=N`.")
    ] = 0,
) -> Response:
    """Cancel a command, also one that runs and can be stopped; cancelling it again answers the same."""
    del wait  # read together with Prefer
    seconds = wait_seconds(headers_of(request.scope), request.scope["query_string"])
    try:
        state = await _cancel(parts, owner, command_id)
        if state is None:
            if parts.recorder.find(owner, command_id) is None:
                raise _unknown(command_id)
            raise Problem(ProblemType.STORAGE_AWAY, "The command is not recorded yet; cancel it again in a moment.")
        if state == State.RUNNING and seconds:
            await _read(parts, owner, command_id, seconds)
            found = await command_rows.find_state(parts.database, owner, command_id)
            state = found["state"] if found is not None else state
        if state not in {State.CANCELLED, State.RUNNING}:
            raise _not_cancellable(state, f"It has ended: {state}.")
        return Response(
            await _read(parts, owner, command_id, 0),
            200 if state == State.CANCELLED else 202,
            media_type="application/json",
        )
    except DatabaseAway:
        raise storage_away() from None


async def _cancel(parts: Parts, owner: str, command_id: UUID) -> str | None:
    """The command's state after the attempt to cancel it (`running` when it is to be stopped); None for no command."""
    found = await command_rows.find_state(parts.database, owner, command_id)
    for _ in range(_CANCEL_TRIES):
        if found is None or found["state"] in TERMINAL:
            break
        publisher = found["publisher"]
        if found["state"] == State.RUNNING:
            if not _is_stoppable(found):
                raise _not_cancellable(
                    State.RUNNING, "It is running, and what it does cannot be stopped in the middle."
                )
            if await command_rows.request_cancel(parts.database, publisher, command_id):
                return State.RUNNING
        else:
            error = Permanent(ErrorCode.CANCELLED, "Cancelled by its owner before it ran.")
            ended = await parts.database.run(
                lambda one: end_command(one, publisher, command_id, State.CANCELLED, error),  # noqa: B023  # awaited at once
                timeout_seconds=_CANCEL_SECONDS,
            )
            if ended is not None:
                # the outbox worker sends the result; whoever waits at this gateway need not wait for that
                parts.waiting.finish(publisher, command_id, ended.body)
                return State.CANCELLED
        found = await command_rows.find_state(parts.database, owner, command_id)
    return found and str(found["state"])


def _is_stoppable(found: Mapping[str, Any]) -> bool:
    try:
        return stoppable(decode_payload(KINDS[found["kind"]], found["payload"].encode()))
    except Permanent:
        return False


def _not_cancellable(state: str, sentence: str) -> Problem:
    return Problem(ProblemType.NOT_CANCELLABLE, sentence, members={"command_status": state})


async def _read(parts: Parts, owner: str, command_id: UUID, seconds: int) -> bytes:
    found = await look(parts, owner, command_id)
    if seconds and (isinstance(found, CommandRow) or found["result"] is None):
        publisher = PUBLISHER if isinstance(found, CommandRow) else found["publisher"]
        with parts.waiting.expect(publisher, command_id) as future:
            if await within(future, seconds) is not None:
                found = await look(parts, owner, command_id)
    if isinstance(found, CommandRow):
        return encode(_of_pending(found))
    view = encode(_of_row(found))
    if found["result"] is not None:
        await parts.cache.put(owner, command_id, view)
    return view


async def look(parts: Parts, owner: str, command_id: UUID) -> Mapping[str, Any] | CommandRow:
    """A command's row, or what this gateway holds of it until it is recorded.

    Args:
        parts: What the gateway consists of.
        owner: Who asks.
        command_id: The command.

    Raises:
        Problem: They have none of that id, or PostgreSQL is away.
    """
    pending = parts.recorder.find(owner, command_id)
    try:
        row: Mapping[str, Any] | None = await command_rows.find(
            parts.database, owner, command_id, lease_seconds=parts.settings.lease_seconds
        )
    except DatabaseAway:
        if pending is None:
            raise storage_away() from None
        return pending
    if row is not None:
        return row
    if pending is not None:
        return pending
    raise _unknown(command_id)


def _unknown(command_id: UUID) -> Problem:
    return Problem(ProblemType.NOT_FOUND, f"You have no command {command_id}.")


def _of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return summary(
        row["id"],
        row["kind"],
        row["state"],
        accepted_at=row["accepted_at"],
        deadline_at=row["deadline_at"],
        owner=row["owner"],
        correlation_id=row["correlation_id"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        retry_at=row["retry_at"],
        cancel_requested_at=row["cancel_requested_at"],
        waiting_for=row["waiting_for"],
        attempts=stored(row["attempts"]),
        result=stored(row["result"]),
    )


def _of_pending(pending: CommandRow) -> dict[str, Any]:
    return summary(
        pending.envelope.id,
        pending.envelope.kind.name,
        State.QUEUED,
        accepted_at=pending.envelope.accepted_at,
        deadline_at=pending.envelope.deadline_at,
        owner=pending.envelope.owner,
        correlation_id=pending.envelope.correlation_id,
        started_at=None,
        finished_at=None,
        retry_at=None,
        cancel_requested_at=None,
        waiting_for=None,
        attempts=[],
        result=None,
    )


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
