"""Decides how each call is to be answered: scripts set from outside, matched to calls, their steps taken in order."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum, unique
from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


@unique
class Fault(StrEnum):
    """What can go wrong other than by an HTTP status, in an answer in one piece and in a stream."""

    # the connection
    STALL_BEFORE_HEADERS = "stall_before_headers"
    STALL_AFTER_HEADERS = "stall_after_headers"
    PINGS_ONLY = "pings_only"
    STALL_MID_BODY = "stall_mid_body"
    RESET_BEFORE_HEADERS = "reset_before_headers"
    RESET_MID_HEADERS = "reset_mid_headers"
    RESET_AFTER_HEADERS = "reset_after_headers"
    RESET_MID_BODY = "reset_mid_body"
    CLOSE_MID_BODY = "close_mid_body"
    TRICKLE = "trickle"
    HUGE_BODY = "huge_body"
    HUGE_EVENT = "huge_event"
    # the content
    EMPTY_BODY = "empty_body"
    MALFORMED_JSON = "malformed_json"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    EMPTY_CHOICES = "empty_choices"
    NULL_CONTENT = "null_content"
    NO_FINISH_REASON = "no_finish_reason"
    ENDS_EARLY = "ends_early"
    ERROR_IN_200 = "error_in_200"
    ERROR_MID_BODY = "error_mid_body"
    # the provider's own refusals
    DEAD_KEY = "dead_key"
    INSUFFICIENT_QUOTA = "insufficient_quota"
    UNKNOWN_MODEL = "unknown_model"
    CONTEXT_TOO_LONG = "context_too_long"
    CONTENT_REFUSED = "content_refused"
    # sloppy, yet the answer is whole
    NO_DONE = "no_done"
    RESET_BEFORE_DONE = "reset_before_done"
    STALL_BEFORE_DONE = "stall_before_done"


HARMLESS = frozenset({Fault.NO_DONE, Fault.RESET_BEFORE_DONE, Fault.STALL_BEFORE_DONE})
"""Faults that leave the answer whole."""


class Step(BaseModel):
    """How one call is answered: exactly one of `ok`, `status`, `zai_code` and `fault`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ok: Literal[True] | None = None
    status: int | None = Field(default=None, ge=200, le=599)
    zai_code: int | None = None
    """ZAI's code, in a body under `status` 429."""
    fault: Fault | None = None
    retry_after: float | str | None = None
    """The Retry-After header: seconds, or an HTTP date as text."""
    code: str | int | None = None
    """`error.code` of a status."""
    type: str | None = None
    """`error.type` of a status."""
    message: str = "scripted"
    text: str | None = None
    """The answer; None echoes the question."""
    tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    """Make an answer of so many words instead."""
    after_tokens: int | None = Field(default=None, ge=0)
    """In a stream, a fault strikes after so many words, None means half of them; a status or code that has it comes as
    an event in the middle of the stream."""
    finish_reason: str = "stop"
    """In OpenAI's words; an Anthropic endpoint says `stop` and `length` in its own."""
    whole: bool = False
    """Answer in one piece even where a stream was asked for."""
    latency_seconds: float | None = Field(default=None, ge=0)
    """Before this answer; None means the script's."""
    seconds_per_token: float | None = Field(default=None, ge=0)
    """After each word of a stream; None means the script's."""
    times: int = Field(default=1, ge=1)
    """Calls that this step answers."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if sum(kind is not None for kind in (self.ok, self.status, self.zai_code, self.fault)) != 1:
            raise ValueError("a step needs exactly one of ok, status, zai_code and fault")
        return self


class Match(BaseModel):
    """Which calls a script is about; what is not given matches any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "*"
    """A model's name, `*` and `?` as in file names."""
    path: str = "*"
    """The request's path, in the same way: `/slow/*` is one of several providers played by this server."""
    command_id: str | None = None
    contains: str | None = None
    """Text in the last user message."""


class Script(BaseModel):
    """What to do with the calls that match; after the last step they are answered well, or it begins anew."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    """A script of the same name is replaced: how a latency is changed while calls go on."""
    match: Match = Match()
    steps: list[Step] = Field(default_factory=list, max_length=10_000)
    latency_seconds: float = Field(default=0, ge=0)
    seconds_per_token: float = Field(default=0, ge=0)
    repeat: bool = False
    """Begin anew after the last step."""
    per_command: bool = False
    """Each command takes the steps by itself; otherwise all matching calls share them in order of arrival."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a script can be matched with."""

    model: str
    command_id: str
    question: str
    """The last user message."""
    path: str = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Turn:
    """What is decided for one call."""

    step: Step
    latency_seconds: float
    seconds_per_token: float


OK = Step(ok=True)
_FAULT_PREFIX = "fault-"
_FAULT_NAMES = frozenset(fault.value for fault in Fault)
_STATUS_NAMES = frozenset(str(status) for status in range(300, 600))


def _step_of_model(model: str) -> Step:
    """`fault-reset_mid_body` and `fault-503` are models that always misbehave; any other answers well."""
    name = model.removeprefix(_FAULT_PREFIX)
    if name == model:
        return OK
    if name in _FAULT_NAMES:
        return Step(fault=Fault(name))
    return Step(status=int(name)) if name in _STATUS_NAMES else OK


@dataclass(slots=True)
class Scripts:
    """The scripts that are set, newest first: the first that matches a call decides."""

    default_latency_seconds: float = 0.0
    default_seconds_per_token: float = 0.0
    _scripts: list[tuple[Script, list[Step], Counter[str]]] = field(default_factory=list)

    def add(self, script: Script) -> None:
        """Let a script decide from the next call on."""
        if script.name is not None:
            self.clear(script.name)
        flat = [step for step in script.steps for _ in range(step.times)]
        self._scripts.insert(0, (script, flat, Counter()))

    def clear(self, name: str | None = None) -> None:
        """Answer well again.

        Args:
            name: Forget this script only; None means all of them.
        """
        self._scripts = [entry for entry in self._scripts if name is not None and entry[0].name != name]

    def next_turn(self, call: Call) -> Turn:
        """Take the step for a call."""
        for script, steps, taken in self._scripts:
            if not _matches(script.match, call):
                continue
            key = call.command_id if script.per_command else ""
            count = taken[key]
            taken[key] += 1
            is_scripted = steps and (script.repeat or count < len(steps))
            return _turn(steps[count % len(steps)] if is_scripted else OK, script)
        return Turn(_step_of_model(call.model), self.default_latency_seconds, self.default_seconds_per_token)


def _turn(step: Step, script: Script) -> Turn:
    return Turn(
        step,
        script.latency_seconds if step.latency_seconds is None else step.latency_seconds,
        script.seconds_per_token if step.seconds_per_token is None else step.seconds_per_token,
    )


def _matches(match: Match, call: Call) -> bool:
    return (
        fnmatchcase(call.model, match.model)
        and fnmatchcase(call.path, match.path)
        and match.command_id in {None, call.command_id}
        and (match.contains is None or match.contains in call.question)
    )
