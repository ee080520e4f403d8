"""What a model is shown: the question, behind as much of its conversation as the model has room for."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from contracts.ai.chat import AiSend

UNKNOWN_CONTEXT_TOKENS = 8_192
"""Room that a model is taken to have when its configuration does not say."""

_ANSWER_TOKENS = 1_024
_LINE_TOKENS = 4
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a conversation."""

    sender: str
    """`user` or `bot`."""
    text: str
    command_id: UUID
    """The command that recorded it."""


History = Callable[[str, str, datetime, UUID], Awaitable[Sequence[Line]]]
"""`(owner, conversation_id, accepted_at, command_id)` to the lines accepted before that command, newest first."""


def estimate_tokens(text: str) -> int:
    """Roughly how many tokens a text makes: a token for four ASCII characters, and one for each other character.

    Args:
        text: Any.
    """
    ascii_characters = len(text.encode("ascii", "ignore"))
    return -(-ascii_characters // _CHARACTERS_PER_TOKEN) + len(text) - ascii_characters


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One command's question and the conversation before it."""

    system: tuple[dict[str, Any], ...]
    question: tuple[dict[str, Any], ...]
    history: tuple[dict[str, Any], ...]
    """Newest line first."""
    answer_tokens: int
    """Room that is kept for the answer."""

    @classmethod
    def of(cls, payload: AiSend, lines: Sequence[Line] = ()) -> "Dialogue":
        """Put a dialogue together.

        Args:
            payload: What the command asks.
            lines: Of its conversation, newest first; the line that it answers is left out, being the question itself.
        """
        spoken = payload.dialogue()
        instructions = 1 if payload.system is not None else 0
        return cls(
            system=tuple(spoken[:instructions]),
            question=tuple(spoken[instructions:]),
            history=tuple(_shown(line) for line in lines if line.command_id != payload.in_reply_to),
            answer_tokens=payload.max_tokens or _ANSWER_TOKENS,
        )

    @property
    def tokens_in(self) -> int:
        """Roughly what the question costs without its history."""
        return _tokens((*self.system, *self.question))

    def messages(self, context_tokens: int | None) -> list[dict[str, Any]]:
        """The messages for a model, oldest first; the oldest of the history are left out until all fit.

        Args:
            context_tokens: The model's room; None when it is not known.
        """
        room = (context_tokens or UNKNOWN_CONTEXT_TOKENS) - self.answer_tokens - self.tokens_in
        kept: list[dict[str, Any]] = []
        for line in self.history:
            room -= _tokens((line,))
            if room < 0:
                break
            kept.append(line)
        while kept and kept[-1]["role"] != "user":  # an answer whose question is cut off says nothing
            kept.pop()
        return [*self.system, *reversed(kept), *self.question]


def wants_history(payload: AiSend) -> bool:
    """Whether the conversation's lines belong before the question: not when `messages` brings answers of its own.

    Args:
        payload: What the command asks.
    """
    if payload.conversation_id is None:
        return False
    return not any(message.role == "assistant" for message in payload.messages or ())


def _shown(line: Line) -> dict[str, Any]:
    return {"role": "assistant" if line.sender == "bot" else "user", "content": line.text}


def _tokens(messages: Sequence[dict[str, Any]]) -> int:
    return sum(estimate_tokens(message["content"]) + _LINE_TOKENS for message in messages)
