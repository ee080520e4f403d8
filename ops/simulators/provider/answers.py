"""Turns a step into a plan: the good answer, a status, one of ZAI's codes, or a fault."""

import hashlib
from dataclasses import dataclass
from typing import Any

from ops.simulators.provider.faults import Setting, faulty
from ops.simulators.provider.forms import Draft, Form, form_of
from ops.simulators.provider.scripts import HARMLESS, Call, Step, Turn
from ops.simulators.provider.wire import EVENTS, LAST_CHUNK, Pause, Plan, chunk, head, http


@dataclass(frozen=True, slots=True)
class Reply:
    """A plan and what it means."""

    plan: Plan
    name: str
    """For the ledger: `ok`, `status 429`, `zai 1302`, `fault trickle`."""
    is_good: bool = False
    """The caller gets a whole answer."""
    tokens_in: int = 0
    tokens_out: int = 0
    """As reported to the caller, by an answer that is good."""


def reply(turn: Turn, call: Call, *, messages: list[dict[str, Any]], stream: bool) -> Reply:
    """What a step does to a call.

    Args:
        turn: The step, and how fast.
        call: The call.
        messages: The dialogue, for the count of its tokens.
        stream: Answer with server-sent events.
    """
    step, form = turn.step, form_of(call.path)
    tokens_in = sum(len(str(message.get("content", "")).split()) for message in messages)
    draft = Draft(call, _words(step, call), tokens_in)
    streams = stream and not step.whole
    if step.fault is not None:
        setting = Setting(form, draft, stream=streams, after_tokens=step.after_tokens)
        is_good = step.fault in HARMLESS
        name, plan = f"fault {step.fault.value}", faulty(step.fault, setting)
    elif step.zai_code is not None:
        is_good, name = False, f"zai {step.zai_code}"
        plan = _failing(form, draft, 429, {"code": str(step.zai_code), "message": step.message}, step, stream=streams)
    elif step.status is not None:
        is_good, name = False, f"status {step.status}"
        error = {"code": step.code, "type": step.type, "message": step.message}
        plan = _failing(form, draft, step.status, error, step, stream=streams)
    elif streams:
        is_good, name, plan = True, "ok", _streamed(form, draft, step, seconds_per_token=turn.seconds_per_token)
    else:
        is_good, name = True, "ok"
        plan = iter([http(200, form.whole(draft, text=draft.text, finish_reason=step.finish_reason))])
    tokens = (draft.tokens_in, draft.tokens_out) if is_good else (0, 0)
    return Reply(plan, name, is_good, *tokens)


def answer_text(call: Call) -> str:
    """The good answer: the same question always gets the same one."""
    digest = hashlib.sha256(call.question.encode()).hexdigest()[:12]
    return f"[{digest}] {call.question}"


def _words(step: Step, call: Call) -> list[str]:
    if step.tokens is not None:
        return ["token-1", *(f" token-{number}" for number in range(2, step.tokens + 1))]
    first, *others = (answer_text(call) if step.text is None else step.text).split(" ")
    return [first, *(f" {word}" for word in others)]


def _streamed(form: Form, draft: Draft, step: Step, *, seconds_per_token: float) -> Plan:
    opening = head(200, length=None, content_type=EVENTS) + chunk(form.opening(draft))
    words = [chunk(form.word(draft, word)) for word in draft.words]
    ending = chunk(form.closing(draft, step.finish_reason)) + chunk(form.done()) + LAST_CHUNK
    if seconds_per_token == 0:
        yield b"".join([opening, *words, ending])
        return
    yield opening
    for word in words:
        yield word
        yield Pause(seconds_per_token)
    yield ending


def _failing(form: Form, draft: Draft, status: int, error: dict[str, Any], step: Step, *, stream: bool) -> Plan:
    if stream and step.after_tokens is not None:
        words = b"".join(form.word(draft, word) for word in draft.words[: step.after_tokens])
        events = chunk(form.opening(draft) + words) + chunk(form.error_event(error))
        return iter([head(200, length=None, content_type=EVENTS) + events + LAST_CHUNK])
    headers = {}
    if step.retry_after is not None:
        wait = step.retry_after
        headers["retry-after"] = f"{wait:g}" if isinstance(wait, float) else wait
    return iter([http(status, form.error(error), headers=headers)])
