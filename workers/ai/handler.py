"""Answers one `ai.send`: puts the dialogue together, has it answered or finds the answer kept, and says what to record."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from contracts.ai.chat import AiSend
from workers.ai.answers.cache import AnswerCache, cache_key
from workers.ai.answers.call_record import Answer, Asked
from workers.ai.answers.checkpoint import KeptAnswers
from workers.ai.answers.streaming import TokenStreams, TokenWriter
from workers.ai.dialogue import Dialogue, History, Line, wants_history
from workers.ai.failover import Asking
from workers.ai.routing.router import DEFAULT_ALIAS
from workers.handler import Command, Handler, Message, Outcome, Usage


def build(asking: Asking, *, history: History, cache: AnswerCache, kept: KeptAnswers, streams: TokenStreams) -> Handler:
    """The handler of `ai.send`.

    Args:
        asking: How providers are asked.
        history: Where a conversation's lines come from.
        cache: Answers to questions that were asked before.
        kept: Answers that are not on record yet.
        streams: Where answers are left while they are made.
    """

    async def handle(command: Command[AiSend]) -> Outcome:
        # a call that is under way is hung up; its provider may count it all the same
        async with command.cancellation.interruptible():
            return await answer(command)

    async def answer(command: Command[AiSend]) -> Outcome:
        payload = command.payload
        lines: Sequence[Line] = ()
        if payload.conversation_id is not None and wants_history(payload):
            lines = await history(command.owner, payload.conversation_id, command.accepted_at, command.id)
        dialogue = Dialogue.of(payload, lines)
        writer = streams.writer(command.publisher, command.id) if payload.stream else None
        try:
            asked = await kept.find(command)
            if asked is not None:
                _tell(writer, asked.answer.text)
            else:
                asked = await _answered(asking, cache, command, dialogue, writer)
                await kept.keep(command, asked)
            if writer is not None:
                await writer.end()
        finally:
            if writer is not None:
                await writer.close()
        return Outcome(
            output=_output(asked.answer, payload),
            messages=_lines(asked.answer, command),
            usage=_usage(asked),
        )

    return handle


async def _answered(
    asking: Asking, cache: AnswerCache, command: Command[AiSend], dialogue: Dialogue, writer: TokenWriter | None
) -> Asked:
    payload = command.payload
    if not _may_be_kept(asking, payload):
        return await asking.answer(command, dialogue, writer)
    asked: Asked | None = None

    async def make() -> Answer:
        nonlocal asked
        asked = await asking.answer(command, dialogue, writer)
        return asked.answer

    question = payload.model_dump(
        mode="json", exclude={"metadata", "conversation_id", "in_reply_to", "timeout_seconds", "stream", "cache"}
    )
    history = [line["content"] for line in dialogue.history]
    answer = await cache.answer(cache_key(command.owner, question=question, history=history), make)
    if asked is not None:
        return asked
    _tell(writer, answer.text)
    return Asked(answer, calls=[], route=None, cost_usd=0.0)


def _tell(writer: TokenWriter | None, text: str) -> None:
    """An answer that is there already is a stream too."""
    if writer is not None:
        writer.begin("kept")
        writer.write(text)


def _may_be_kept(asking: Asking, payload: AiSend) -> bool:
    if payload.cache is not None or not payload.deterministic:
        return bool(payload.cache)
    alias = asking.configuration().aliases.get(payload.model or DEFAULT_ALIAS)
    return alias is not None and alias.cache


def _usage(asked: Asked) -> Usage:
    answer = asked.answer
    details: dict[str, Any] = {"route": asked.route, "calls": asked.calls}
    if answer.cached:
        return Usage(target=answer.target, tokens_in=0, tokens_out=0, cost_usd=0.0, details={"cached": True, **details})
    counted = sum(call["outcome"] != "provider_rate_limited" for call in asked.calls)
    return Usage(
        target=answer.target,
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        cost_usd=asked.cost_usd,
        calls=counted,
        details=details,
    )


def _output(answer: Answer, payload: AiSend) -> dict[str, Any]:
    output = answer.output()
    if payload.conversation_id is not None:
        output["conversation_id"] = payload.conversation_id
    return output


def _lines(answer: Answer, command: Command[AiSend]) -> tuple[Message, ...]:
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
    if answer.text:
        lines.append(
            Message(
                conversation_id=payload.conversation_id,
                sender="bot",
                text=answer.text,
                sent_at=datetime.now(UTC),
                metadata={**(payload.metadata or {}), "provider": answer.provider, "model": answer.model},
            )
        )
    return tuple(lines)
