"""Answers one `ai.send`: chooses a target, asks it within the deadline, and says what to record."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from contracts.ai import MAX_TIMEOUT_SECONDS, AiSend
from contracts.errors import ErrorCode, Expired, Transient
from workers.ai.configuration import Configuration, Target
from workers.ai.openai_style import Completion, Question, complete
from workers.ai.routing import candidates
from workers.handler import Command, Handler, Message, Outcome, Usage

_OPTIONS = frozenset({"temperature", "top_p", "max_tokens", "stop", "seed"})


def build(configuration: Configuration, *, client: httpx.AsyncClient) -> Handler:
    """The handler of `ai.send`.

    Args:
        configuration: From `workers.ai.configuration.load`, or an empty one: then every command fails and says what to
            configure.
        client: From `workers.ai.client.open_client`; it outlives the handler.
    """

    async def handle(command: Command[AiSend]) -> Outcome:
        payload = command.payload
        target = candidates(configuration, model=payload.model, provider=payload.provider)[0]
        completion = await _ask(client, target, command)
        return Outcome(
            output=_output(completion, target, payload),
            messages=_lines(completion, target, command),
            usage=Usage(
                target=target.name,
                tokens_in=completion.tokens_in,
                tokens_out=completion.tokens_out,
                cost_usd=target.model.cost_usd(tokens_in=completion.tokens_in, tokens_out=completion.tokens_out),
            ),
        )

    return handle


async def _ask(client: httpx.AsyncClient, target: Target, command: Command[AiSend]) -> Completion:
    remaining = (command.deadline_at - datetime.now(UTC)).total_seconds()
    if remaining <= 0:
        raise _too_late()
    question = Question(
        messages=command.payload.dialogue(),
        options=command.payload.model_dump(include=set(_OPTIONS), exclude_none=True),
        # two publishers may use the same id: neither may be given the other's answer
        idempotency_key=f"{quote(command.publisher, safe='')}:{command.id}",
        timeout_seconds=min(command.payload.timeout_seconds or MAX_TIMEOUT_SECONDS, remaining),
    )
    try:
        return await complete(client, target, question)
    except Transient as error:
        if datetime.now(UTC) >= command.deadline_at:
            raise _too_late() from error
        raise


def _too_late() -> Expired:
    return Expired(ErrorCode.DEADLINE_PASSED, "the deadline passed before an answer was complete")


def _output(completion: Completion, target: Target, payload: AiSend) -> dict[str, Any]:
    output: dict[str, Any] = {
        "text": completion.text,
        "model": target.model_name,
        "provider": target.provider_name,
        "finish_reason": completion.finish_reason,
        "usage": {"prompt_tokens": completion.tokens_in, "completion_tokens": completion.tokens_out},
    }
    if payload.conversation_id is not None:
        output["conversation_id"] = payload.conversation_id
    if completion.citations:
        output["citations"] = list(completion.citations)
    return output


def _lines(completion: Completion, target: Target, command: Command[AiSend]) -> tuple[Message, ...]:
    """What the conversation gains: the question, unless a relay recorded it already, and the answer."""
    payload = command.payload
    if payload.conversation_id is None:
        return ()
    lines: list[Message] = []
    question = payload.question()
    if question is not None and payload.in_reply_to is None:
        lines.append(
            Message(
                conversation_id=payload.conversation_id,
                sender="user",
                text=question,
                sent_at=command.accepted_at,
                metadata=dict(payload.metadata or {}),
            )
        )
    if completion.text:
        lines.append(
            Message(
                conversation_id=payload.conversation_id,
                sender="bot",
                text=completion.text,
                sent_at=datetime.now(UTC),
                metadata={**(payload.metadata or {}), "provider": target.provider_name, "model": target.model_name},
            )
        )
    return tuple(lines)
