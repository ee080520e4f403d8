"""`POST /v1/chat/completions`: one request becomes one durable command, and its answer goes back in OpenAI's form.

A stream says nothing it would have to take back: text goes out while it is made, the end only once the result is on
record; and what ends otherwise ends with an error that names the command, never with a silence.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from contracts.commands import KIND_AI, KINDS, encode_payload
from contracts.results import State
from gateway import PUBLISHER
from gateway.container import Parts
from gateway.dependencies import Owner, PartsOf
from gateway.http.request import Disconnected, headers_of, read_asked, read_body, request_id_of
from gateway.http.sse import KEEP_ALIVE, KEEP_ALIVE_SECONDS, EventStream, departure, woken
from gateway.openai import failures
from gateway.openai.answers import Chunks, completion
from gateway.openai.failures import COMMAND_ID, Failure
from gateway.openai.requests import ChatRequest, read_request
from gateway.publishing import Accepted, Publishing, Standing
from gateway.services.transcript import Entry, Transcript

router = APIRouter(tags=["openai"])

DEADLINE_SECONDS = 600.0
"""Of a request that names none: OpenAI's SDKs wait for so long."""
_GRACE_SECONDS = 15.0
"""Beyond the deadline, in which the command is ended on record."""


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request on its way."""

    parts: Parts
    publishing: Publishing
    command: Accepted
    asked: ChatRequest
    keyed: bool

    async def publish(self) -> Standing:
        return await self.publishing.publish(self.command, keyed=self.keyed)

    def seconds_left(self, standing: Standing) -> float:
        left = (standing.deadline_at - datetime.now(UTC)).total_seconds()
        return max(0.0, left) + _GRACE_SECONDS

    def document(self, result: bytes | str | None) -> dict[str, Any]:
        """The result of a command that succeeded.

        Raises:
            Failure: There is none, since this gateway stops; or it did not succeed.
        """
        if result is None:
            raise self._unfinished("This gateway is stopping.", status=503, code="gateway_stopping")
        document: dict[str, Any] = orjson.loads(result)
        if document["status"] != State.SUCCEEDED:
            raise failures.of_result(document, provider_named=self.asked.payload.provider is not None)
        return document

    def too_late(self) -> Failure:
        return self._unfinished("There is no result yet.", status=504, code="timeout")

    def interrupted(self) -> Failure:
        why = "The answer began anew after a part of it had been delivered, which is void."
        return self._unfinished(why, status=502, code="stream_interrupted")

    def _unfinished(self, why: str, *, status: int, code: str) -> Failure:
        return failures.unfinished(self.command.id, why, status=status, code=code, keyed=self.keyed)


_EXAMPLE = {"model": "default", "messages": [{"role": "user", "content": "What is a message queue?"}], "stream": False}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["messages"],
                "description": "OpenAI's chat completion request, text only. Extras (an SDK's `extra_body`): "
                "`provider`, `conversation_id`, `cache`, `capabilities`, `timeout_seconds`.",
            },
            "example": _EXAMPLE,
        }
    },
}


@router.post("/v1/chat/completions", response_class=Response, openapi_extra={"requestBody": _BODY})
async def create_chat_completion(request: Request, parts: PartsOf, owner: Owner) -> Response:
    """OpenAI's chat completions, plain and with `stream`; see OpenAI's own reference for the form."""
    headers = headers_of(request.scope)
    headed = read_asked(headers, request.scope["query_string"])
    asked = read_request(await read_body(request.receive, headers, limit_bytes=parts.settings.body_limit_bytes))
    publishing = Publishing(parts, KINDS[KIND_AI], deadline_seconds=DEADLINE_SECONDS)
    command = publishing.command(
        owner,
        replace(headed, priority=headed.priority or asked.priority),
        body=encode_payload(asked.payload),
        payload=asked.payload,
        correlation_id=request_id_of(request.scope),
        waits=True,
    )
    exchange = _Exchange(parts, publishing, command, asked, keyed=headed.idempotency_key is not None)
    try:
        if asked.payload.stream:
            return await _stream(exchange)
        return await _whole(exchange, request)
    except Failure as failure:
        return failure.response()


async def _whole(exchange: _Exchange, request: Request) -> Response:
    with exchange.parts.waiting.expect(PUBLISHER, exchange.command.id) as result:
        standing = await exchange.publish()
        if standing.result is not None:
            document = exchange.document(standing.result)
        else:
            document = exchange.document(await _result(exchange, standing, result, request))
    return Response(
        completion(standing, document), headers={COMMAND_ID: str(standing.id)}, media_type="application/json"
    )


async def _result(
    exchange: _Exchange, standing: Standing, result: asyncio.Future[bytes | None], request: Request
) -> bytes | None:
    """Wait for a result, no longer than its client does; the command goes on without either."""
    async with asyncio.TaskGroup() as tasks:
        gone = tasks.create_task(departure(request.receive))
        waited: set[asyncio.Future[Any]] = {result, gone}
        await asyncio.wait(waited, timeout=exchange.seconds_left(standing), return_when=asyncio.FIRST_COMPLETED)
        left = gone.done()
        gone.cancel()
    if result.done():
        return result.result()
    if left:
        raise Disconnected
    raise exchange.too_late()


async def _stream(exchange: _Exchange) -> Response:
    pieces = _pieces(exchange)
    # until the first piece is there an error can still have its status
    first = await anext(pieces)
    return EventStream(_with_first(first, pieces), headers={COMMAND_ID: str(exchange.command.id)})


async def _with_first(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """All pieces; an error among them is the last."""
    try:
        yield first
        async for piece in pieces:
            yield piece
    except Failure as failure:
        yield b"data: %s\n\n" % failure.body()
    finally:
        await pieces.aclose()


async def _pieces(exchange: _Exchange) -> AsyncGenerator[bytes, None]:
    parts, command_id = exchange.parts, exchange.command.id
    wake = asyncio.Event()
    with ExitStack() as stack:
        result = stack.enter_context(parts.waiting.expect(PUBLISHER, command_id))
        result.add_done_callback(lambda _: wake.set())
        follower = stack.enter_context(parts.streams.follow(PUBLISHER, command_id, wake))
        standing = await exchange.publish()
        if standing.result is not None and not result.done():
            result.set_result(standing.result.encode() if isinstance(standing.result, str) else standing.result)
        told = _Told(exchange, Chunks(standing, exchange.asked.model, include_usage=exchange.asked.include_usage))
        clock = asyncio.get_running_loop().time
        ends_at = clock() + exchange.seconds_left(standing)
        while not result.done():
            piece = told.more(parts.streams.take(follower))
            if piece:
                yield piece
            if clock() >= ends_at:
                raise exchange.too_late()
            if not await woken(wake, min(KEEP_ALIVE_SECONDS, ends_at - clock())):
                yield KEEP_ALIVE
        document = exchange.document(result.result())
    yield told.end(document["output"])


class _Told:
    """What the client of a stream has been told.

    Args:
        exchange: Its request.
        chunks: Their form.
    """

    def __init__(self, exchange: _Exchange, chunks: Chunks) -> None:
        self._exchange = exchange
        self._chunks = chunks
        self._transcript = Transcript()

    def more(self, entries: Sequence[Entry]) -> bytes:
        """The chunk for new entries; empty when they hold no text.

        Raises:
            Failure: The answer began anew, and what was told cannot be taken back.
        """
        text = ""
        for entry in entries:
            if self._transcript.add(entry):
                if self._chunks.begun:
                    raise self._exchange.interrupted()
                text = ""
            if self._transcript.counts(entry):
                text += entry.text
        return self._chunks.text(text) if text else b""

    def end(self, output: dict[str, Any]) -> bytes:
        """What the result has beyond what was told, and the last chunks.

        Raises:
            Failure: The result is another text than what was told.
        """
        whole: str = output["text"]
        rest = self._transcript.rest(whole) if self._chunks.begun else whole
        if rest is None:
            raise self._exchange.interrupted()
        return self._chunks.text(rest) + self._chunks.end(output)
