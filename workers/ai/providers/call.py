"""One call of a provider: the question sent, the answer read as it is made, its time-outs, and what broke it.

A call succeeds when the provider said, with a finish reason, that the answer is whole. Whatever ends it before that -
a time-out, a lost connection, an error in the middle, an end without a word - is an error, never a shorter answer.
What ends it after that does no harm: an answer whose finish reason arrived is whole, even if the connection breaks
before `[DONE]`.

Nothing of httpx or aiohttp leaves this module, and nothing that a person or a model wrote enters an error.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import aiohttp
import httpx
import orjson

from contracts.errors import CommandError, ErrorCode, Transient
from workers.ai.answers.completion import ENDLESS, MAX_ANSWER_BYTES, Completion, Reading
from workers.ai.configuration import Target
from workers.ai.providers.errors import Scope, Verdict, is_error
from workers.ai.providers.sse import Event, EventParser, EventTooLong

__all__ = ["Completion", "Question", "ask"]

_USAGE_SECONDS = 2.0
"""How long the usage may follow a finish reason."""
_LINGER_SECONDS = 0.1
"""How long the end of the body may follow a complete answer: read to its end, a connection can be used again."""

_UNREACHABLE = Verdict(Transient, ErrorCode.PROVIDER_UNAVAILABLE, Scope.PROVIDER, "cannot be reached")
_UNTRUSTED = Verdict(
    Transient, ErrorCode.PROVIDER_UNAVAILABLE, Scope.PROVIDER, "cannot be reached: TLS fails, check base_url"
)
_NO_ANSWER = Verdict(
    Transient, ErrorCode.PROVIDER_UNAVAILABLE, Scope.PROVIDER, "closed the connection or sent no HTTP answer"
)
_SILENT = Verdict(Transient, ErrorCode.PROVIDER_TIMEOUT, Scope.MODEL, "did not begin to answer in time")
_STALLED = Verdict(Transient, ErrorCode.PROVIDER_TIMEOUT, Scope.MODEL, "did not finish its answer in time")
_OUT_OF_TIME = Verdict(
    Transient, ErrorCode.PROVIDER_TIMEOUT, Scope.REQUEST, "did not finish within the time that the question allows"
)
_CUT = Verdict(Transient, ErrorCode.PROVIDER_INCOMPLETE, Scope.MODEL, "broke off in the middle of its answer")
_NOT_JSON = Verdict(
    Transient, ErrorCode.PROVIDER_MALFORMED, Scope.PROVIDER, "answered with something other than JSON or events"
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, in the terms all dialects share."""

    messages: list[dict[str, Any]]
    options: dict[str, Any]
    """temperature, top_p, max_tokens, stop, seed, response_format: those that were given."""
    idempotency_key: str
    """The same for every attempt of one command, and for no other."""
    timeout_seconds: float
    """The call as a whole, from connecting to the last byte."""


async def ask(
    client: httpx.AsyncBaseTransport,
    target: Target,
    question: Question,
    *,
    on_text: Callable[[str], None] | None = None,
) -> Completion:
    """Ask once.

    Time-outs: `connect_timeout_seconds` to connect; `first_token_timeout_seconds` from the request to the first of the
    text or the reasoning, or to the end of an answer in one piece; from then on `idle_timeout_seconds` between events;
    and the question's own for everything. Comments and pings hold none of them up.

    Args:
        client: From `workers.ai.providers.client.open_client`.
        target: Where.
        question: What.
        on_text: Gets each piece of the text as it arrives; together they are the text of a call that succeeds.

    Raises:
        Transient: Worth another try, with the wait that the provider asked for.
        Permanent: The same question would fail the same way within the scope that `details` name (see `verdicts`).
    """
    call = _Call(target, question, Reading(target, on_text))
    request = call.request()
    try:
        async with asyncio.timeout_at(call.ends_by()) as window:
            response = await client.handle_async_request(request)
            async with aclosing(response):
                await call.read(response, window)
    except (TimeoutError, httpx.HTTPError, aiohttp.ClientError, OSError) as error:
        if call.reading.whole_at is None:
            raise call.broken(error) from error
    return call.reading.completion()


class _Call:
    """The way of one answer over the network."""

    def __init__(self, target: Target, question: Question, reading: Reading) -> None:
        self.reading = reading
        self._target = target
        self._question = question
        self._clock = asyncio.get_running_loop().time
        self._ends_at = reading.started_at + question.timeout_seconds
        self._first_at = reading.started_at + target.provider.first_token_timeout_seconds
        self._response: httpx.Response | None = None
        self._byte_at: float | None = None
        """When the last byte of an answer in one piece came."""

    def ends_by(self) -> float:
        """When the wait for whatever comes next is over, in the loop's time."""
        reading, idle_seconds = self.reading, self._target.provider.idle_timeout_seconds
        if reading.whole_at is not None:
            is_complete = reading.is_over or reading.has_usage
            return min(self._ends_at, reading.whole_at + (_LINGER_SECONDS if is_complete else _USAGE_SECONDS))
        if reading.progress_at is not None:
            return min(self._ends_at, reading.progress_at + idle_seconds)
        if self._byte_at is not None:
            return min(self._ends_at, self._first_at, self._byte_at + idle_seconds)
        return min(self._ends_at, self._first_at)

    def request(self) -> httpx.Request:
        """The HTTP request."""
        provider, question = self._target.provider, self._question
        asked = self.reading.dialect.build(self._target, question.messages, question.options, stream=provider.stream)
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json" if provider.stream else "application/json",
            "Accept-Encoding": "identity",  # a gateway that compresses a stream holds its events back
            "Idempotency-Key": question.idempotency_key,
            "User-Agent": "ish-chat",
            **asked.headers,
        }
        return httpx.Request(
            "POST",
            _url(asked.url),
            headers=headers,
            content=orjson.dumps(asked.body),
            extensions={"timeout": {"connect": provider.connect_timeout_seconds}},
        )

    async def read(self, response: httpx.Response, window: asyncio.Timeout) -> None:
        """Read the answer in the form it comes in, which may be another than what was asked for."""
        self._response = response
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.is_success and media_type == "text/event-stream":
            await self._read_events(response, window)
            return
        content = await self._read_body(response, window)
        body = _json(content)
        if not response.is_success or is_error(body):
            raise self._refused(response, body)
        if len(content) > MAX_ANSWER_BYTES:
            raise self.reading.failed(ENDLESS)
        if media_type != "application/json" and not media_type.endswith("+json"):
            raise self.reading.failed(_NOT_JSON)
        self.reading.take_whole(body)

    def broken(self, error: Exception) -> CommandError:
        """The error for a call that ended without a whole answer.

        What happened is asked of aiohttp's own error: its translation calls every lost connection a ConnectTimeout.
        """
        if self._response is not None and not self._response.is_success:
            return self._refused(self._response, None)  # a failure whose body was cut: its status says enough
        cause = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ is not None else error
        if isinstance(cause, aiohttp.ClientSSLError):
            verdict = _UNTRUSTED
        elif isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            verdict = _UNREACHABLE
        elif isinstance(cause, TimeoutError):
            verdict = self._timed_out()
        else:
            verdict = _NO_ANSWER if self._response is None else _CUT
        return self.reading.failed(verdict)

    async def _read_body(self, response: httpx.Response, window: asyncio.Timeout) -> bytes:
        content = bytearray()
        async with aclosing(_chunks(response)) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    break
                self._byte_at = self._clock()
                window.reschedule(self.ends_by())
        return bytes(content)

    async def _read_events(self, response: httpx.Response, window: asyncio.Timeout) -> None:
        parser = EventParser(MAX_ANSWER_BYTES)
        async with aclosing(_chunks(response)) as chunks:
            async for chunk in chunks:
                try:
                    for event in parser.feed(chunk):
                        self._take(event, response)
                except EventTooLong:
                    raise self.reading.failed(ENDLESS) from None
                window.reschedule(self.ends_by())
        last = parser.rest()
        if last is not None and _json(last.data) is not None:  # else the cut went through it
            self._take(last, response)

    def _take(self, event: Event, response: httpx.Response) -> None:
        if self.reading.is_over:
            return
        if event.data.strip() == b"[DONE]":
            self.reading.is_over = True
            return
        body = _json(event.data)
        if event.name == "error" or is_error(body):
            raise self._refused(response, body)
        self.reading.take_event(body)

    def _timed_out(self) -> Verdict:
        """Whose fault a time-out is.

        The question's own limit says nothing about a provider, unless that had been silent for a telling time.
        """
        now, sign_at = self._clock(), self.reading.progress_at or self._byte_at
        silent_seconds = now - (sign_at or self.reading.started_at)
        if now >= self._ends_at and silent_seconds < self._target.provider.idle_timeout_seconds:
            return _OUT_OF_TIME
        return _SILENT if sign_at is None else _STALLED

    def _refused(self, response: httpx.Response, body: Any) -> CommandError:
        return self.reading.refused(status=response.status_code, headers=response.headers, body=body)


@lru_cache(maxsize=256)
def _url(text: str) -> httpx.URL:
    return httpx.URL(text)  # reading one takes longer than sending to it


def _chunks(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    return cast("AsyncGenerator[bytes, None]", response.aiter_bytes())  # declared as an iterator only


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
