"""The payload of `ai.send.v1`: one question to a language model."""

import math
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from contracts.schema_rules import exactly_one, needs
from contracts.whole_numbers import WHOLE

MAX_PROMPT_CHARACTERS = 100_000
MAX_MESSAGES = 1_000
MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_DEPTH = 32
MAX_TIMEOUT_SECONDS = 600


def without_nul(text: str) -> str:
    """PostgreSQL stores no NUL, so text that holds one could be accepted and then never recorded."""
    if "\x00" in text:
        raise ValueError("must not contain the NUL character (U+0000)")
    return text


def _listed(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


def _plain(metadata: object) -> object:
    """Refuse early what jsonb cannot hold, level by level, so that no depth can exhaust the stack."""
    level = [metadata]
    for _ in range(MAX_METADATA_DEPTH + 1):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str):
                without_nul(value)
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError("must hold finite numbers only")
        if not inner:
            return metadata
        level = inner
    raise ValueError(f"must not be nested deeper than {MAX_METADATA_DEPTH} levels")


def _within_size(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        encoded = orjson.dumps(metadata)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"cannot be written as JSON: {error}") from None
    if len(encoded) > MAX_METADATA_BYTES:
        raise ValueError(f"must be at most {MAX_METADATA_BYTES} bytes as JSON, not {len(encoded)}")
    return metadata


Text = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(without_nul)]
StopSequence = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(without_nul)]
StopSequences = Annotated[
    list[StopSequence],
    Field(min_length=1, max_length=4),
    BeforeValidator(
        _listed,
        json_schema_input_type=StopSequence | Annotated[list[StopSequence], Field(min_length=1, max_length=4)],
    ),
]
Metadata = Annotated[dict[str, JsonValue], BeforeValidator(_plain), AfterValidator(_within_size)]
ResponseFormat = Metadata


class ChatMessage(BaseModel):
    """One line of the dialogue shown to the model, oldest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: Text


class AiSend(BaseModel):
    """Ask a language model; exactly one of `prompt` and `messages` is the question."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        # the rules that no field can express alone, for those who validate with the published schema
        json_schema_extra={
            **exactly_one("prompt", "messages"),
            "allOf": [
                needs("in_reply_to", "conversation_id"),
                {
                    "if": {"required": ["cache"], "properties": {"cache": {"const": True}}},
                    "then": {
                        "anyOf": [
                            {"required": ["temperature"], "properties": {"temperature": {"const": 0}}},
                            {"required": ["seed"], "properties": {"seed": {"type": "integer"}}},
                        ]
                    },
                },
            ],
        },
    )

    prompt: Text | None = Field(default=None, description="The question, as one user message.")
    messages: list[ChatMessage] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_MESSAGES,
        description="The dialogue so far, oldest first.",
    )
    system: Text | None = Field(default=None, description="Instructions, put before everything else.")
    model: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,199}$",
        description="An alias, `provider/model`, or the name of a model; without it the alias `default`.",
    )
    provider: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
        description="Ask this provider only; without `model`, its first model.",
    )
    conversation_id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.:-]{1,128}$",
        description="Record question and answer as lines of this conversation, and show the model the lines before them "
        "(unless `messages` holds answers already).",
    )
    temperature: float | None = Field(default=None, ge=0, le=2, strict=True)
    top_p: float | None = Field(default=None, gt=0, le=1, strict=True)
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000, strict=True), WHOLE] | None = Field(
        default=None, description="The longest answer, in tokens."
    )
    stop: StopSequences | None = Field(default=None, description="The answer ends before any of these.")
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1, strict=True), WHOLE] | None = None
    timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        le=MAX_TIMEOUT_SECONDS,
        strict=True,
        description="The longest one call of a provider may take.",
    )
    capabilities: list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]] | None = Field(
        default=None, min_length=1, max_length=8, description="Ask only models that have all of these."
    )
    response_format: ResponseFormat | None = Field(
        default=None,
        description='Passed on to the provider: `{"type": "json_object"}`, or `json_schema` with its schema.',
    )
    stream: bool = Field(
        default=False,
        strict=True,
        description="Let the answer be read at `/api/commands/{id}/events` while it is made.",
    )
    cache: bool | None = Field(
        default=None,
        strict=True,
        description="Take an identical answer of the last hour, if there is one; needs `temperature` 0 or a `seed`.",
    )
    in_reply_to: UUID | None = Field(
        default=None,
        description="The relay command whose message this answers: the user's line is recorded already.",
    )
    metadata: Metadata | None = Field(
        default=None, description=f"Kept with the recorded lines; at most {MAX_METADATA_BYTES} bytes as JSON."
    )

    @model_validator(mode="after")
    def _asks_one_question(self) -> Self:
        if self.prompt is None and self.messages is None:
            raise ValueError("one of prompt and messages is required")
        if self.prompt is not None and self.messages is not None:
            raise ValueError("give either prompt or messages, not both")
        if self.cache and not self.deterministic:
            raise ValueError("cache: needs temperature 0 or a seed: other answers differ from call to call")
        if self.in_reply_to is not None and self.conversation_id is None:
            raise ValueError("in_reply_to needs conversation_id: it names the conversation whose line is answered")
        return self

    @property
    def deterministic(self) -> bool:
        """Whether the same question is meant to get the same answer."""
        return self.temperature == 0 or self.seed is not None

    def dialogue(self) -> list[dict[str, Any]]:
        """The messages for the model, oldest first, each `{"role": …, "content": …}`."""
        lines = [{"role": "system", "content": self.system}] if self.system is not None else []
        if self.prompt is not None:
            lines.append({"role": "user", "content": self.prompt})
        lines.extend(message.model_dump() for message in self.messages or ())
        return lines

    def question(self) -> str | None:
        """The user's newest line; None when the dialogue has none."""
        if self.prompt is not None:
            return self.prompt
        return next((line.content for line in reversed(self.messages or []) if line.role == "user"), None)
