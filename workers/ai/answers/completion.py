"""A provider's answer in the making: puts its pieces together, knows when it is whole, and what its failures amount to."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from contracts.errors import CommandError, ErrorCode, Permanent, Transient
from workers.ai.configuration import Target
from workers.ai.providers import DIALECTS
from workers.ai.providers.dialect import MalformedAnswer, Piece
from workers.ai.providers.errors import REFUSED, Scope, Verdict, error_for, judge

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Of an answer in one piece, of one event of a stream, and of the text that all its events make (there: characters)."""

_UNFINISHED = Verdict(Transient, ErrorCode.PROVIDER_INCOMPLETE, Scope.MODEL, "did not say that its answer is complete")
_MALFORMED = Verdict(Transient, ErrorCode.PROVIDER_MALFORMED, Scope.MODEL, "answered in a form that is not its own")
_TEXTLESS = Verdict(Transient, ErrorCode.PROVIDER_MALFORMED, Scope.MODEL, "answered without a text")
ENDLESS = Verdict(
    Permanent, ErrorCode.PROVIDER_MALFORMED, Scope.MODEL, f"answered with more than {MAX_ANSWER_BYTES} bytes"
)


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    """Without NUL characters, and without the model's reasoning where the provider keeps that apart."""
    finish_reason: str
    """`stop`, or `length` when max_tokens or the model's end was reached."""
    tokens_in: int | None
    tokens_out: int | None
    citations: tuple[str, ...] = ()
    sources: tuple[dict[str, str], ...] = ()
    """What a search found: each has `url` and, where known, `title` and `date`."""
    first_token_seconds: float | None = None
    """From the request to the first of the text or the reasoning; None when the answer came in one piece."""
    seconds: float = 0.0
    """From the request to the end of the answer."""


class Reading:
    """What one call has brought so far.

    Args:
        target: Who answers.
        on_text: Gets each piece of the text.
    """

    def __init__(self, target: Target, on_text: Callable[[str], None] | None) -> None:
        self.dialect = DIALECTS[target.provider.dialect]
        self._target = target
        self._on_text = on_text
        self._clock = asyncio.get_running_loop().time
        self._texts: list[str] = []
        self._characters = 0
        self._finish_reason = ""
        self._tokens_in: int | None = None
        self._tokens_out: int | None = None
        self._citations: tuple[str, ...] = ()
        self._sources: tuple[dict[str, str], ...] = ()
        self.started_at = self._clock()
        self.first_token_at: float | None = None
        """In the loop's time, as all of these: when the first of the text or the reasoning came, in a stream."""
        self.progress_at: float | None = None
        """When the last event came that did more than keep the connection open, the first token or a later one."""
        self.whole_at: float | None = None
        """When the provider said that the answer is complete."""
        self.has_usage = False
        """The usage came with the finish reason or after it."""
        self.is_over = False
        """The provider said that nothing follows."""

    def take_event(self, body: Any) -> None:
        """Add one event of a stream.

        Args:
            body: Its JSON.

        Raises:
            CommandError: It makes the answer useless.
        """
        piece = self._read(self.dialect.read_event, body)
        if self.first_token_at is None and (piece.text or piece.thought):
            self.first_token_at = self._clock()
        if self.first_token_at is not None and not piece.idle:
            self.progress_at = self._clock()
        self._add(piece)

    def take_whole(self, body: Any) -> None:
        """Add everything at once.

        Args:
            body: The answer's JSON.

        Raises:
            CommandError: It is no whole answer.
        """
        piece = self._read(self.dialect.read_whole, body)
        if piece.finish_reason is None:
            raise self.failed(_UNFINISHED)
        self._add(piece)

    def completion(self) -> Completion:
        """The answer, once nothing more comes.

        Raises:
            CommandError: It is not whole.
        """
        if self.whole_at is None:
            raise self.failed(_UNFINISHED)
        if not self._texts and self._finish_reason == "stop":
            raise self.failed(_TEXTLESS)
        return Completion(
            text="".join(self._texts),
            finish_reason=self._finish_reason,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            citations=tuple(_storable(citation) for citation in self._citations),
            sources=tuple({key: _storable(value) for key, value in source.items()} for source in self._sources),
            first_token_seconds=None if self.first_token_at is None else self.first_token_at - self.started_at,
            seconds=self.whole_at - self.started_at,
        )

    def failed(self, verdict: Verdict, *, what: str | None = None) -> CommandError:
        """The error for a verdict on this call.

        Args:
            verdict: What happened.
            what: How the provider put it.
        """
        return error_for(
            verdict,
            provider=self._target.provider_name,
            model=self._target.model_name,
            what=what,
            begun=self._characters > 0,
        )

    def refused(self, *, status: int, headers: Mapping[str, str], body: Any) -> CommandError:
        """The error that the provider itself reports.

        Args:
            status: The HTTP status.
            headers: By lower-case name.
            body: The parsed JSON that holds the error, or None.
        """
        return judge(
            provider=self._target.provider_name,
            model=self._target.model_name,
            table=self.dialect.errors,
            status=status,
            headers=headers,
            body=body,
            now=datetime.now(UTC),
            begun=self._characters > 0,
        )

    def _read(self, reader: Callable[[Any], Piece], body: Any) -> Piece:
        try:
            return reader(body)
        except MalformedAnswer:
            raise self.failed(_MALFORMED) from None

    def _add(self, piece: Piece) -> None:
        if piece.refused:
            raise self.failed(REFUSED)
        if piece.finish_reason is not None:
            self._finish(piece.finish_reason)
        if piece.text is not None:
            self._say(_storable(piece.text))
        if piece.tokens_in is not None:
            self._tokens_in = piece.tokens_in
        if piece.tokens_out is not None:
            self._tokens_out = piece.tokens_out
            self.has_usage = self.whole_at is not None
        self._citations = piece.citations or self._citations
        self._sources = piece.sources or self._sources
        self.is_over = self.is_over or piece.ends

    def _finish(self, reason: str) -> None:
        if reason in self.dialect.unfinished:
            raise self.failed(self.dialect.unfinished[reason], what=f"finish_reason {reason}")
        if reason not in self.dialect.finished:  # its own words are not repeated: they may be anything
            raise self.failed(_UNFINISHED, what="unknown finish_reason")
        self._finish_reason = self.dialect.finished[reason]
        self.whole_at = self.whole_at or self._clock()

    def _say(self, text: str) -> None:
        self._texts.append(text)
        self._characters += len(text)
        if self._characters > MAX_ANSWER_BYTES:
            raise self.failed(ENDLESS)
        if text and self._on_text is not None:
            self._on_text(text)


def _storable(text: str) -> str:
    return text.replace("\x00", "\ufffd")  # PostgreSQL stores no NUL
