"""The form that OpenAI, ZAI and Perplexity share: `POST {base_url}/chat/completions` and its `choices`."""

from collections.abc import Mapping, Sequence
from typing import Any

from workers.ai.configuration import Target
from workers.ai.providers.dialect import MalformedAnswer, Piece, Request

_NOTHING = Piece()


def build(
    target: Target, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], *, stream: bool
) -> Request:
    """A call in the shared form: the options under their own names. See `RequestBuilder`."""
    headers = {}
    if target.api_key is not None:
        headers["Authorization"] = f"Bearer {target.api_key.get_secret_value()}"
    body = {"model": target.model_name, "messages": list(messages), **options}
    if stream:
        body["stream"] = True
    return Request(f"{target.provider.base_url}/chat/completions", headers, body)


def read_event(body: Any) -> Piece:
    """One chunk: `choices[0].delta`.

    Args:
        body: Its JSON.
    """
    return _read(body, "delta", empty_choices_are_fine=True)


def read_whole(body: Any) -> Piece:
    """A whole answer: `choices[0].message`.

    Args:
        body: Its JSON.
    """
    return _read(body, "message", empty_choices_are_fine=False)


def _read(body: Any, part: str, *, empty_choices_are_fine: bool) -> Piece:
    if not isinstance(body, dict):
        raise MalformedAnswer("not an object")
    tokens_in, tokens_out = _usage(body.get("usage"))
    choices = body.get("choices")
    if not choices:
        if not empty_choices_are_fine:  # in a stream they come with the usage, and elsewhere
            raise MalformedAnswer("no choices")
        return _NOTHING if tokens_in is tokens_out is None else Piece(tokens_in=tokens_in, tokens_out=tokens_out)
    choice = choices[0] if isinstance(choices, list) else None
    if not isinstance(choice, dict):
        raise MalformedAnswer("choices are not a list of objects")
    said = choice.get(part) or {}
    finish_reason = choice.get("finish_reason")
    if not isinstance(said, dict) or not isinstance(finish_reason, str | None):
        raise MalformedAnswer("a choice is not of the known form")
    return Piece(
        text=_text(said.get("content")),
        thought=bool(said.get("reasoning_content") or said.get("reasoning")),
        refused=bool(said.get("refusal")),
        finish_reason=finish_reason,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
    )


def _text(content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise MalformedAnswer("content is neither text nor a list of parts")
    parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(part for part in parts if isinstance(part, str))  # Mistral's form; its other parts are reasoning


def _usage(usage: Any) -> tuple[int | None, int | None]:
    if not isinstance(usage, dict):
        return None, None
    return count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))


def count(tokens: Any) -> int | None:
    """A number of tokens as a provider reports it; None when it is none.

    Args:
        tokens: Anything.
    """
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < 2**31 else None
