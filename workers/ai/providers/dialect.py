"""What a dialect is: how one family of servers is asked, how its answers are read, and what its errors mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from workers.ai.configuration import Target
from workers.ai.providers.errors import ErrorTable, Verdict


class MalformedAnswer(ValueError):
    """An answer, or an event of one, is not of the dialect's form; the message says nothing of its content."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call, ready to be sent as JSON."""

    url: str
    headers: dict[str, str]
    """With the API key."""
    body: dict[str, Any]


class RequestBuilder(Protocol):
    """Puts a question into the dialect's form."""

    def __call__(
        self, target: Target, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], *, stream: bool
    ) -> Request:
        """The call.

        Args:
            target: Where it goes to.
            messages: The dialogue, oldest first, each `{"role": …, "content": …}`.
            options: temperature, top_p, max_tokens, stop, seed, response_format: those that were given.
            stream: Ask for server-sent events.

        Raises:
            Permanent: The dialect cannot say what an option asks for.
        """


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a stream, or a whole body, adds to the answer."""

    text: str | None = None
    """None when it says nothing of the text, which is not the same as an empty one."""
    thought: bool = False
    """It holds some of the model's reasoning, which is not part of the text."""
    refused: bool = False
    """The model declines to answer, outside the text."""
    finish_reason: str | None = None
    """In the provider's words."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    """Counts so far; the last one said holds."""
    citations: tuple[str, ...] = ()
    sources: tuple[dict[str, str], ...] = ()
    """Each with `url` and, where known, `title` and `date`."""
    ends: bool = False
    """The provider says that nothing follows."""
    idle: bool = False
    """It only keeps the connection open."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One family of servers."""

    errors: ErrorTable
    finished: Mapping[str, str]
    """Each finish reason that ends a whole answer, and our name for it: `stop`, or `length` when it was cut short."""
    unfinished: Mapping[str, Verdict]
    """Each finish reason that is a failure; any that is in neither table leaves the answer incomplete."""
    build: RequestBuilder
    read_event: Callable[[Any], Piece]
    """Reads the JSON of one server-sent event; raises MalformedAnswer."""
    read_whole: Callable[[Any], Piece]
    """Reads the JSON of an answer in one piece; raises MalformedAnswer."""
