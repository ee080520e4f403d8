"""Turns a step into a plan: the good answer, a status, one of ZAI's codes, or a fault."""

from dataclasses import dataclass
from typing import Any

import orjson

from ops.scripted_provider.chat import answer_text, completion, events, usage
from ops.scripted_provider.faults import faulty
from ops.scripted_provider.scripts import Call, Step
from ops.scripted_provider.wire import Plan, http


@dataclass(frozen=True, slots=True)
class Reply:
    """A plan and what it means."""

    plan: Plan
    name: str
    """For the ledger: `ok`, `status 429`, `zai 1302`, `fault trickle`."""
    tokens_in: int = 0
    tokens_out: int = 0
    """As reported to the caller, by an answer that counts as good."""


def reply(step: Step, call: Call, *, messages: list[dict[str, Any]], stream: bool) -> Reply:
    """What a step does to a call.

    Args:
        step: From the script.
        call: The call.
        messages: The dialogue, for the count of its tokens.
        stream: Answer `ok` as server-sent events.
    """
    if step.fault is not None:
        return Reply(faulty(step.fault, call), name=f"fault {step.fault.value}")
    if step.zai_code is not None:
        return Reply(iter([_error(429, step, code=str(step.zai_code))]), name=f"zai {step.zai_code}")
    if step.status is not None:
        return Reply(iter([_error(step.status, step, code=step.code)]), name=f"status {step.status}")
    text = answer_text(call) if step.text is None else step.text
    tokens = usage(messages, text)
    if stream:
        plan = events(call, text=text, finish_reason=step.finish_reason, tokens=tokens)
    else:
        plan = iter([http(200, completion(call, text=text, finish_reason=step.finish_reason, tokens=tokens))])
    return Reply(plan, name="ok", tokens_in=tokens["prompt_tokens"], tokens_out=tokens["completion_tokens"])


def _error(status: int, step: Step, *, code: str | int | None) -> bytes:
    named = {"code": code, "type": step.type, "message": step.message}
    body = orjson.dumps({"error": {key: value for key, value in named.items() if value is not None}})
    if step.retry_after is None:
        return http(status, body)
    wait = f"{step.retry_after:g}" if isinstance(step.retry_after, float) else step.retry_after
    return http(status, body, headers={"retry-after": wait})
