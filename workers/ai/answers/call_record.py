"""A whole answer as the product keeps it: what the model said, and where it came from."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from workers.ai.configuration import Target
from workers.ai.providers.call import Completion


class Answer(BaseModel):
    """One answer; JSON-ready, so that a cache can hold it."""

    model_config = ConfigDict(frozen=True)

    text: str
    finish_reason: str
    provider: str
    model: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    citations: tuple[str, ...] = ()
    sources: tuple[dict[str, str], ...] = ()
    cached: bool = False
    """Taken from an earlier identical question; it cost nothing."""

    @classmethod
    def of(cls, completion: Completion, target: Target) -> "Answer":
        """The answer that a call brought.

        Args:
            completion: What the provider said.
            target: Who said it.
        """
        return cls(
            text=completion.text,
            finish_reason=completion.finish_reason,
            provider=target.provider_name,
            model=target.model_name,
            tokens_in=completion.tokens_in,
            tokens_out=completion.tokens_out,
            citations=completion.citations,
            sources=completion.sources,
        )

    @property
    def target(self) -> str:
        """`provider/model`."""
        return f"{self.provider}/{self.model}"

    def output(self) -> dict[str, Any]:
        """The `output` of the command's result."""
        output: dict[str, Any] = {
            "text": self.text,
            "model": self.model,
            "provider": self.provider,
            "finish_reason": self.finish_reason,
            "usage": {"prompt_tokens": self.tokens_in, "completion_tokens": self.tokens_out},
        }
        if self.citations:
            output["citations"] = list(self.citations)
        if self.sources:
            output["sources"] = list(self.sources)
        if self.cached:
            output["cached"] = True
        return output


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer and what it took."""

    answer: Answer
    calls: list[dict[str, Any]]
    """Each call of a provider, in order, JSON-ready."""
    route: dict[str, Any] | None
    """The last routing decision; None when no provider was asked."""
    cost_usd: float | None
