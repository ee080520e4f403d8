"""Perplexity: OpenAI's form, with the answer's citations and search results beside the choices.

Every chunk of a stream repeats them, and the usage; the stream may end without `[DONE]`.
Source: https://docs.perplexity.ai.
"""

from dataclasses import replace
from typing import Any

from workers.ai.providers import chat_completions, openai
from workers.ai.providers.dialect import Dialect, Piece
from workers.ai.providers.errors import REFUSED, ErrorTable

_SOURCE_FIELDS = ("url", "title", "date")


def read_event(body: Any) -> Piece:
    """One chunk.

    Args:
        body: Its JSON.
    """
    return _with_sources(chat_completions.read_event(body), body)


def read_whole(body: Any) -> Piece:
    """A whole answer.

    Args:
        body: Its JSON.
    """
    return _with_sources(chat_completions.read_whole(body), body)


def _with_sources(piece: Piece, body: Any) -> Piece:
    if not isinstance(body, dict):
        return piece
    citations = tuple(entry for entry in _list(body.get("citations")) if isinstance(entry, str))
    sources = tuple(source for entry in _list(body.get("search_results")) if (source := _source(entry)))
    if not citations and not sources:
        return piece
    # the marks [1], [2] in the text count either list, and newer answers have the second one only
    return replace(piece, citations=citations or tuple(source["url"] for source in sources), sources=sources)


def _source(entry: Any) -> dict[str, str] | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
        return None
    return {key: entry[key] for key in _SOURCE_FIELDS if isinstance(entry.get(key), str)}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


PERPLEXITY = Dialect(
    # its error.code is the HTTP status as a number; error.type, where it is there, is one of OpenAI's words
    errors=ErrorTable(codes=openai.CODES),
    finished={"stop": "stop", "length": "length"},
    unfinished={"content_filter": REFUSED},
    build=chat_completions.build,
    read_event=read_event,
    read_whole=read_whole,
)
