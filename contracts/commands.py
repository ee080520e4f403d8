"""Kinds of commands and their payloads: what a body must look like, and the error when it does not.

A kind is a routing key, a message type (`relay.v1`) and a payload model. Versions are major only and stand in the type;
inside one version fields are only added.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.functional_validators import BeforeValidator

from contracts import topology
from contracts.ai.chat import AiSend, Metadata, without_nul
from contracts.android.command import AndroidExecute
from contracts.errors import ErrorCode, Permanent
from contracts.faults import faults_of
from contracts.redaction import redacted
from contracts.whole_numbers import WHOLE

KIND_RELAY, KIND_AI, KIND_ANDROID = "relay", "ai.send", "android.execute"
VERSION = 1
MAX_MESSAGE_CHARACTERS = 10_000
_LINE_AND_COLUMN = re.compile(r"line \d+ column \d+")


def _aware(value: object) -> object:
    """Clients of the old system send local-looking stamps; a stamp without a zone is taken as UTC."""
    if isinstance(value, str) and value and value[-1] not in "Zz":
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            return value
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return value


ConversationId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
_Epoch = Annotated[
    float,
    Field(
        ge=-62_135_596_800_000,
        le=253_402_300_799_999,
        description="Since the epoch: seconds, beyond 2e10 milliseconds.",
    ),
]
Timestamp = Annotated[AwareDatetime, BeforeValidator(_aware, json_schema_input_type=AwareDatetime | _Epoch)]


class Ask(BaseModel):
    """Ask a model for the bot's answer to a relayed message."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,199}$")
    provider: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    system: (
        Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE_CHARACTERS), AfterValidator(without_nul)] | None
    ) = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000, strict=True), WHOLE] | None = None
    temperature: float | None = Field(default=None, ge=0, le=2, strict=True)


class Relay(BaseModel):
    """Record one chat message and deliver it to the owner's targets; `ask` also asks a model to answer it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sender: Literal["user", "bot"]
    message: Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE_CHARACTERS), AfterValidator(without_nul)]
    timestamp: Timestamp = Field(description="When it was written; without a zone it is taken as UTC.")
    metadata: Metadata = Field(default_factory=dict)
    conversation_id: ConversationId | None = Field(
        default=None, description="The conversation it belongs to; without one it opens a conversation of its own."
    )
    deliver_to: list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]] | None = Field(
        default=None, max_length=100, description="Names of webhook targets; without it, every matching target."
    )
    ask: Ask | Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Ask a model, and record its answer as the bot's message."
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of command and where it goes."""

    name: str
    payload: type[BaseModel]
    queue: str

    @property
    def type(self) -> str:
        """The AMQP type of its commands, `relay.v1`."""
        return f"{self.name}.v{VERSION}"

    @property
    def result_type(self) -> str:
        """The AMQP type of its results, `relay.result.v1`."""
        return f"{self.name}.result.v{VERSION}"


KINDS = {
    kind.name: kind
    for kind in (
        Kind(KIND_RELAY, Relay, topology.RELAY),
        Kind(KIND_AI, AiSend, topology.AI),
        Kind(KIND_ANDROID, AndroidExecute, topology.ANDROID),
    )
}


class InvalidPayload(Permanent):
    """The body does not fit its kind; `details["problems"]` lists `{field, rule}` for each fault."""

    def __init__(self, problems: list[dict[str, str]]) -> None:
        sentence = "; ".join(f"{problem['field']}: {problem['rule']}" for problem in problems)
        super().__init__(ErrorCode.INVALID_PAYLOAD, sentence, details={"problems": problems})


def decode_payload(kind: Kind, body: bytes) -> BaseModel:
    """Check a body against its kind.

    Args:
        kind: What it claims to be.
        body: JSON, UTF-8.

    Raises:
        Permanent: It is not JSON (`not_json`).
        InvalidPayload: It is JSON and does not fit; each fault is named by field and rule.
    """
    try:
        return kind.payload.model_validate_json(body)
    except ValidationError as error:
        raise refusal(error, body) from None


def refusal(error: ValidationError, body: bytes) -> Permanent:
    """Why a body is refused.

    Args:
        error: What its model raised.
        body: The body.
    """
    problems = problems_of(error, _document(body))
    if any(problem["type"] == "json_invalid" for problem in problems):
        return Permanent(ErrorCode.NOT_JSON, f"the body is not JSON{_place(error)}")
    return InvalidPayload([{"field": one["field"] or "(body)", "rule": one["rule"]} for one in problems])


def problems_of(error: ValidationError, given: Any = None) -> list[dict[str, str]]:
    """Pydantic's errors as `{field, rule, type}`, without echoing the input.

    Args:
        error: What a model raised.
        given: The whole document, where it is at hand: fields are then named as it names them.
    """
    return faults_of(error.errors(include_url=False, include_input=False), given)


def _document(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _place(error: ValidationError) -> str:
    """Where a parser stopped: `, from line 1 column 2`."""
    match = _LINE_AND_COLUMN.search(error.errors(include_url=False, include_input=False)[0]["msg"])
    return f", from {match[0]}" if match else ""


def routing_key(kind: Kind, *, priority: str | None = None, payload: BaseModel | None = None) -> str:
    """Where on `ish.commands` a command of this kind goes.

    Args:
        kind: The kind.
        priority: `batch` sends AI commands to their own queue.
        payload: The decoded payload, when it is at hand: one that names a phone goes to that phone's own queue.
    """
    if isinstance(payload, AndroidExecute) and payload.device is not None:
        return topology.device_key(payload.device)
    if kind.name == KIND_AI and priority == "batch":
        return topology.ROUTING_KEYS[topology.AI_BATCH]
    return topology.ROUTING_KEYS[kind.queue]


def repeatable(payload: BaseModel) -> bool:
    """Whether a command may be run again after a crash in the middle of it.

    Args:
        payload: The decoded payload.
    """
    return payload.repeatable if isinstance(payload, AndroidExecute) else True


def stoppable(payload: BaseModel) -> bool:
    """Whether a command can be stopped while it runs.

    Args:
        payload: The decoded payload.
    """
    if isinstance(payload, AndroidExecute):
        return payload.stoppable
    return isinstance(payload, AiSend)


def recorded_body(kind: str, body: bytes) -> bytes:
    """A body as it may be written down: without the secrets that it has for typing.

    Args:
        kind: The command's kind.
        body: As published.
    """
    return redacted(body) if kind == KIND_ANDROID else body


def fingerprint(kind: str, body: bytes) -> bytes:
    """What makes two commands under one id the same: 16 bytes of SHA-256 over kind and body.

    Args:
        kind: The kind's name.
        body: The payload's bytes as published.
    """
    # no secret may be found out from what is stored: it is left out, rather than hashed
    return hashlib.sha256(kind.encode() + b"\0" + recorded_body(kind, body)).digest()[:16]


def encode_payload(payload: BaseModel) -> bytes:
    """The canonical bytes of a payload: what was given, in the model's order, with nothing filled in.

    Args:
        payload: A validated payload.
    """
    return orjson.dumps(payload.model_dump(mode="json", exclude_unset=True))


def payload_from(kind: Kind, data: dict[str, JsonValue] | dict[str, Any]) -> BaseModel:
    """Check already parsed JSON against a kind (a follow-up made by a handler).

    Args:
        kind: The kind.
        data: The payload.

    Raises:
        InvalidPayload: It does not fit.
    """
    try:
        return kind.payload.model_validate(data)
    except ValidationError as error:
        raise InvalidPayload(
            [{"field": one["field"] or "(body)", "rule": one["rule"]} for one in problems_of(error, data)]
        ) from None
