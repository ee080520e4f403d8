"""One call of an OpenAI-style server: `POST {base_url}/chat/completions`, its time-outs, and what its answer amounts to.

Nothing of httpx or aiohttp leaves this module, and nothing that a person or a model wrote enters an error.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import httpx
import orjson
from pydantic import BaseModel, Field, ValidationError

from contracts.errors import ErrorCode, Permanent, Transient
from workers.ai.configuration import Target
from workers.ai.verdicts import FINISHED, NOT_FINISHED, error_for, judge

MAX_ANSWER_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, in the terms all dialects share."""

    messages: list[dict[str, Any]]
    options: dict[str, Any]
    """temperature, top_p, max_tokens, stop, seed: those that were given."""
    idempotency_key: str
    """The same for every attempt of one command, and for no other."""
    timeout_seconds: float
    """The call as a whole, from connecting to the last byte."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    """Without NUL characters."""
    finish_reason: str
    """`stop`, or `length` when max_tokens or the model's end was reached."""
    tokens_in: int | None
    tokens_out: int | None
    citations: tuple[str, ...] = ()


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message | None = None
    finish_reason: str | None = None


class _Answer(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None
    citations: Any = None


async def complete(client: httpx.AsyncClient, target: Target, question: Question) -> Completion:
    """Ask once.

    Args:
        client: From `workers.ai.client.open_client`.
        target: Where.
        question: What.

    Raises:
        Transient: Worth another try, with the wait that the provider asked for.
        Permanent: The same question would fail the same way here.
    """
    response, content = await _exchange(client, target, question)
    body = _json(content)
    if not response.is_success or _is_error(body):
        raise judge(
            provider=target.provider_name,
            model=target.model_name,
            dialect=target.provider.dialect,
            status=response.status_code,
            headers=response.headers,
            body=body,
            now=datetime.now(UTC),
        )
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise _malformed(target, "answered with something other than JSON")
    return _completion(body, target)


async def _exchange(client: httpx.AsyncClient, target: Target, question: Question) -> tuple[httpx.Response, bytes]:
    """Send the question and read the answer's bytes, each phase within its own time-out."""
    provider = target.provider
    clock = asyncio.get_running_loop().time
    ends_at = clock() + question.timeout_seconds
    response: httpx.Response | None = None
    content = bytearray()
    try:
        async with asyncio.timeout_at(min(ends_at, clock() + provider.first_token_timeout_seconds)) as window:
            response = await client.send(_request(client, target, question), stream=True)
            async with aclosing(response):
                window.reschedule(min(ends_at, clock() + provider.idle_timeout_seconds))
                async for chunk in response.aiter_bytes():
                    window.reschedule(min(ends_at, clock() + provider.idle_timeout_seconds))
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        break
    except (TimeoutError, httpx.HTTPError, aiohttp.ClientError, OSError) as error:
        if response is None or response.is_success:
            raise _broken(target, error, begun=response is not None) from error
        # a failure whose body was cut: its status says enough
    if len(content) > MAX_ANSWER_BYTES and response.is_success:
        raise Permanent(
            ErrorCode.PROVIDER_MALFORMED,
            f"provider {target.provider_name} answered with more than {MAX_ANSWER_BYTES} bytes",
            details=_details(target),
        )
    return response, bytes(content)


def _request(client: httpx.AsyncClient, target: Target, question: Question) -> httpx.Request:
    headers = {"Content-Type": "application/json", "Idempotency-Key": question.idempotency_key}
    if target.api_key is not None:
        headers["Authorization"] = f"Bearer {target.api_key.get_secret_value()}"
    return client.build_request(
        "POST",
        f"{target.provider.base_url}/chat/completions",
        headers=headers,
        content=orjson.dumps({"model": target.model_name, "messages": question.messages, **question.options}),
        timeout=httpx.Timeout(None, connect=target.provider.connect_timeout_seconds),
    )


def _broken(target: Target, error: Exception, *, begun: bool) -> Transient:
    """The error for a call that ended without a whole answer.

    What happened is asked of aiohttp's own error: its translation calls every lost connection a ConnectTimeout.
    """
    cause = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ is not None else error
    if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        code, what = ErrorCode.PROVIDER_UNAVAILABLE, "cannot be reached"
    elif isinstance(cause, TimeoutError):
        what = "did not finish its answer in time" if begun else "did not begin to answer in time"
        code = ErrorCode.PROVIDER_TIMEOUT
    elif begun:
        code, what = ErrorCode.PROVIDER_INCOMPLETE, "broke off in the middle of its answer"
    else:
        code, what = ErrorCode.PROVIDER_UNAVAILABLE, "closed the connection or sent no HTTP answer"
    return Transient(code, f"provider {target.provider_name} {what}", details=_details(target))


def _completion(body: Any, target: Target) -> Completion:
    try:
        answer = _Answer.model_validate(body)
    except ValidationError:
        raise _malformed(target, "answered without a usable choice") from None
    choice = answer.choices[0]
    if choice.finish_reason in NOT_FINISHED:
        raise error_for(
            NOT_FINISHED[choice.finish_reason],
            provider=target.provider_name,
            what=f"finish_reason {choice.finish_reason}",
            details=_details(target),
        )
    if choice.finish_reason not in FINISHED:
        raise Transient(
            ErrorCode.PROVIDER_INCOMPLETE,
            f"provider {target.provider_name} did not say that its answer is complete",
            details=_details(target),
        )
    if choice.message is None:
        raise _malformed(target, "answered without a text")
    usage = answer.usage if isinstance(answer.usage, dict) else {}
    citations = answer.citations if isinstance(answer.citations, list) else []
    return Completion(
        text=_storable(choice.message.content),
        finish_reason=FINISHED[choice.finish_reason],
        tokens_in=_count(usage.get("prompt_tokens")),
        tokens_out=_count(usage.get("completion_tokens")),
        citations=tuple(_storable(citation) for citation in citations if isinstance(citation, str)),
    )


def _is_error(body: Any) -> bool:
    """Whether a successful answer's body is an error: `{"error": …}`, or ZAI's bare `{"code": …, "msg": …}`."""
    return isinstance(body, dict) and bool(body.get("error") or ("code" in body and "choices" not in body))


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _malformed(target: Target, what: str) -> Transient:
    return Transient(ErrorCode.PROVIDER_MALFORMED, f"provider {target.provider_name} {what}", details=_details(target))


def _details(target: Target) -> dict[str, Any]:
    return {"provider": target.provider_name, "model": target.model_name}


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd")  # PostgreSQL stores no NUL


def _count(tokens: Any) -> int | None:
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < 2**31 else None
