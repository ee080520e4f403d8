"""The route that follows a command while it runs: its states, its answer's text while it is made, and its result.

    state    {"status", "attempt", "retry_at",    where it is, when that changes; and what it waits for
              "waiting_for"}
    token    {"text"}                             more of the answer; its id is the place to go on from
    restart  {}                                   the answer begins anew, or comes with the result: what was told is void
    result   the stored result                    the last event

A client that was cut off comes again with the Last-Event-ID that it has, and misses and repeats nothing. Once it has had
the result it is told so by 204, at which an EventSource stops.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, Response

from contracts.commands import KIND_AI
from contracts.results import State
from contracts.tables import CommandRow
from gateway import PUBLISHER
from gateway.container import Parts
from gateway.dependencies import Owner, PartsOf
from gateway.http.sse import KEEP_ALIVE, EventStream, event, woken
from gateway.routes.commands import CommandId, look
from gateway.services.progress import Step
from gateway.services.transcript import START, Entry, EntryId, Transcript
from gateway.services.views import encode

router = APIRouter(tags=["commands"])

_PLACE = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")
_DONE = "end"
"""Id of the last event."""
_COME_BACK = b"retry: 1000\n\n"
_EXAMPLE = 'event: state\ndata: {"status":"running","attempt":1}\n\nid: 1767225600000-0\nevent: token\ndata: {"text":"Hello"}\n'


@dataclass(frozen=True, slots=True)
class _Seen:
    """A command when somebody begins to follow it."""

    publisher: str
    id: UUID
    kind: str
    step: Step
    result: str | None


@router.get(
    "/api/commands/{command_id}/events",
    response_class=Response,
    responses={
        200: {"description": "Events, until the result.", "content": {"text/event-stream": {"example": _EXAMPLE}}},
        204: {"description": "You have had the last event."},
    },
)
async def read_events(
    parts: PartsOf,
    owner: Owner,
    command_id: CommandId,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Id of the last event that you have had.")
    ] = None,
) -> Response:
    """Follow a command: `state`, `token` and `restart` events, then `result`; with `stream` the answer as it is made."""
    seen = _seen(await look(parts, owner, command_id), command_id)
    if last_event_id == _DONE and seen.result is not None:
        return Response(status_code=204)
    match = _PLACE.fullmatch(last_event_id or "")
    return EventStream(_events(parts, seen, (int(match[1]), int(match[2])) if match else START))


def _seen(found: Mapping[str, Any] | CommandRow, command_id: UUID) -> _Seen:
    if isinstance(found, CommandRow):
        return _Seen(PUBLISHER, command_id, found.envelope.kind.name, Step(State.QUEUED), None)
    step = Step(found["state"], found["attempt"], found["retry_at"], found["waiting_for"])
    return _Seen(found["publisher"], command_id, found["kind"], step, found["result"])


async def _events(parts: Parts, seen: _Seen, after: EntryId) -> AsyncGenerator[bytes, None]:
    wake = asyncio.Event()
    telling = _Telling(after)
    with ExitStack() as stack:
        result = stack.enter_context(parts.waiting.expect(seen.publisher, seen.id))
        result.add_done_callback(lambda _: wake.set())
        follower = stack.enter_context(parts.streams.follow(seen.publisher, seen.id, wake, wanted=seen.kind == KIND_AI))
        watched = stack.enter_context(parts.progress.watch(seen.publisher, seen.id, wake, seen.step))
        if seen.result is not None and not result.done():
            result.set_result(seen.result.encode())
        yield _COME_BACK
        told: Step | None = None
        while not result.done():
            if watched.step != told:
                told = watched.step
                yield _state(told)
            for piece in telling.tell(parts.streams.take(follower)):
                yield piece
            if not await woken(wake):
                yield KEEP_ALIVE
        body = result.result()
        if body is None:  # this gateway stops; another goes on from the last event
            return
        for piece in telling.tell(await parts.streams.take_rest(follower)):
            yield piece
    document = orjson.loads(body)
    for piece in telling.conclude(document):
        yield piece
    yield _state(Step(document["status"], document["attempts"]))
    yield event("result", body, id_=_DONE)


class _Telling:
    """Turns a stream's entries into events for a client that has had some of them.

    Args:
        after: The last that it has had.
    """

    def __init__(self, after: EntryId) -> None:
        self._after = after
        self._place_found = after == START
        self._lost = False
        self._transcript = Transcript()

    def tell(self, entries: list[Entry]) -> Iterator[bytes]:
        """Events for these entries, texts that follow each other in one."""
        text, last = "", None
        for entry in entries:
            restarted = self._transcript.add(entry)
            if entry.id <= self._after:
                self._place_found |= entry.id == self._after
                continue
            if not self._place_found:
                yield from self._lose()
            if self._lost or not self._transcript.counts(entry):
                continue
            if restarted:
                yield _RESTART
                text = ""
            text, last = text + entry.text, entry
        if text and last is not None:
            yield _token(text, last)

    def conclude(self, document: dict[str, Any]) -> Iterator[bytes]:
        """What is to be said right before the result: nothing, unless what was told is not its text."""
        if not self._place_found:
            yield from self._lose()
        if self._lost or not self._transcript.characters or document["status"] != State.SUCCEEDED:
            return
        if self._transcript.rest(str((document.get("output") or {}).get("text", ""))) != "":
            yield _RESTART

    def _lose(self) -> Iterator[bytes]:
        """The place that the client has is not in the stream (trimmed, or lost): the text comes with the result."""
        if not self._lost:
            self._lost = True
            yield _RESTART


_RESTART = event("restart", b"{}")


def _token(text: str, last: Entry) -> bytes:
    return event("token", orjson.dumps({"text": text}), id_=last.name)


def _state(step: Step) -> bytes:
    retry = {} if step.retry_at is None else {"retry_at": step.retry_at}
    waiting = {} if step.waiting_for is None else {"waiting_for": step.waiting_for}
    return event("state", encode({"status": step.status, "attempt": step.attempt, **retry, **waiting}))
