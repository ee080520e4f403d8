"""The dialect's answers: a whole completion, and the chunks of one that is read while it is made."""

from typing import Any
from uuid import UUID

import orjson

from gateway.publishing import Standing

DONE = b"data: [DONE]\n\n"


def completion_id(command_id: UUID) -> str:
    """The answer's id, which names the command.

    Args:
        command_id: The command.
    """
    return f"chatcmpl-{command_id}"


def completion(standing: Standing, document: dict[str, Any]) -> bytes:
    """A whole answer.

    Args:
        standing: The command.
        document: Its result, of a command that succeeded.
    """
    output = document["output"]
    message = {"role": "assistant", "content": output["text"], "refusal": None}
    return orjson.dumps(
        {
            "id": completion_id(standing.id),
            "object": "chat.completion",
            "created": int(standing.accepted_at.timestamp()),
            "model": output["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": output["finish_reason"]}],
            "usage": usage(output),
            **_more(output),
        }
    )


def usage(output: dict[str, Any]) -> dict[str, int] | None:
    """Counts of tokens; None when the provider did not say.

    Args:
        output: Of the result.
    """
    counts = output.get("usage") or {}
    prompt, answer = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if prompt is None or answer is None:
        return None
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


class Chunks:
    """The chunks of one answer.

    Args:
        standing: The command.
        model: As the request named it: who answers is known only in the end.
        include_usage: The request wants the counts of tokens.
    """

    def __init__(self, standing: Standing, model: str, *, include_usage: bool) -> None:
        self._frame = {
            "id": completion_id(standing.id),
            "object": "chat.completion.chunk",
            "created": int(standing.accepted_at.timestamp()),
            "model": model,
        }
        self._include_usage = include_usage
        self.begun = False

    def text(self, text: str) -> bytes:
        """More of the answer; the first chunk also says who speaks.

        Args:
            text: What is new.
        """
        first = b"" if self.begun else self._choice({"role": "assistant", "content": "", "refusal": None}, None)
        self.begun = True
        return first + (self._choice({"content": text}, None) if text else b"")

    def end(self, output: dict[str, Any]) -> bytes:
        """The last chunks.

        Args:
            output: Of the result.
        """
        last = self._choice({}, output["finish_reason"], **_more(output))
        counts = self._chunk(choices=[], usage=usage(output)) if self._include_usage else b""
        return last + counts + DONE

    def _choice(self, delta: dict[str, Any], finish_reason: str | None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        # with the counts asked for, every other chunk says that it has none
        counts = {"usage": None} if self._include_usage else {}
        return self._chunk(choices=[choice], **counts, **more)

    def _chunk(self, **members: Any) -> bytes:
        return b"data: %s\n\n" % orjson.dumps({**self._frame, **members})


def _more(output: dict[str, Any]) -> dict[str, Any]:
    """What OpenAI's form has no place for: where an answer that was searched for comes from."""
    named = {"citations": output.get("citations"), "search_results": output.get("sources")}
    return {name: value for name, value in named.items() if value}
