"""What a command's calls lead to: which provider is asked next, when it is over, and what is kept of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts.ai.chat import AiSend
from contracts.errors import CommandError, Deferred, ErrorCode, Permanent, Transient
from ops.simulators.provider.ledger import Ledger
from ops.simulators.provider.scripts import Script, Scripts
from ops.simulators.provider.server import running
from workers.ai.answers.cache import open_cache
from workers.ai.answers.checkpoint import open_kept_answers
from workers.ai.answers.streaming import open_token_streams
from workers.ai.configuration import load
from workers.ai.dialogue import Line
from workers.ai.failover import Asking
from workers.ai.handler import build
from workers.ai.limits import RetryBudget, open_fleet
from workers.ai.providers.client import open_client
from workers.ai.routing.router import Router
from workers.handler import Command, Handler, Outcome

PROVIDERS = """
[providers.one]
dialect = "openai"
base_url = "{address}/one/v1"
first_token_timeout_seconds = 0.5
idle_timeout_seconds = 0.5
[providers.one.models.small]
context_tokens = 4000
input_usd_per_million_tokens = 1
output_usd_per_million_tokens = 1
capabilities = ["fast"]
[providers.two]
dialect = "openai"
base_url = "{address}/two/v1"
[providers.two.models.small]
context_tokens = 4000
[providers.two.models.large]
context_tokens = 100000
capabilities = ["vision"]
[aliases.default]
models = ["one/small", "two/small"]
[aliases.patient]
models = ["one/small", "two/small"]
max_calls = 1
[aliases.kept]
models = ["one/small"]
cache = true
"""


@dataclass(slots=True)
class Stand:
    """The handler of `ai.send` before two scripted providers, without queues and tables."""

    handler: Handler
    scripts: Scripts
    ledger: Ledger
    lines: list[Line]

    def script(self, path: str, *steps: dict[str, Any], **rest: Any) -> None:
        self.scripts.add(Script.model_validate({"match": {"path": f"/{path}/*"}, "steps": list(steps), **rest}))

    async def ask(self, *, calls: int = 0, seconds: float = 60, **payload: Any) -> Outcome:
        now = datetime.now(UTC)
        command = Command(
            publisher="demo",
            id=uuid4(),
            kind="ai.send",
            owner="owner",
            payload=AiSend.model_validate({"prompt": "why is the sky blue", **payload}),
            attempt=1,
            accepted_at=now,
            deadline_at=now + timedelta(seconds=seconds),
            calls=calls,
        )
        return await self.handler(command)

    async def failure(self, **payload: Any) -> CommandError:
        with pytest.raises(CommandError) as caught:
            await self.ask(**payload)
        return caught.value


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    scripts, ledger, lines = Scripts(0), Ledger(), list[Line]()

    async def history(_owner: str, _conversation: str, _at: datetime, _id: UUID) -> Sequence[Line]:
        return lines

    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(running(port=0, scripts=scripts, ledger=ledger))
        path = tmp_path / "providers.toml"
        path.write_text(PROVIDERS.format(address=f"http://127.0.0.1:{port}"))
        configuration = load(path, secret_from_environment=lambda _: None)
        asking = Asking(
            configuration=lambda: configuration,
            client=await stack.enter_async_context(open_client()),
            router=Router(),
            fleet=await stack.enter_async_context(open_fleet("")),
            budget=RetryBudget(0.1),
            calls_per_command=3,
        )
        handler = build(
            asking,
            history=history,
            cache=await stack.enter_async_context(open_cache("", keep_seconds=60)),
            kept=await stack.enter_async_context(open_kept_answers("")),
            streams=await stack.enter_async_context(open_token_streams("")),
        )
        yield Stand(handler, scripts, ledger, lines)


def called(outcome: Outcome) -> list[tuple[str, str]]:
    details = outcome.usage.details or {}
    return [(call["target"], call["outcome"]) for call in details["calls"]]


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ({"status": 503}, "provider_unavailable"),
        ({"status": 429, "retry_after": 60}, "provider_rate_limited"),
        ({"fault": "stall_before_headers"}, "provider_timeout"),
        ({"fault": "close_mid_body"}, "provider_incomplete"),
        ({"fault": "malformed_json"}, "provider_malformed"),
        ({"fault": "dead_key"}, "provider_authentication"),
        ({"fault": "unknown_model"}, "model_not_found"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_wrong_with_one_provider_is_answered_by_the_next(
    stand: Stand, step: dict[str, Any], code: str
) -> None:
    stand.script("one", step, repeat=True)

    outcome = await stand.ask()

    assert (outcome.output["provider"], outcome.output["finish_reason"]) == ("two", "stop")
    assert called(outcome) == [("one/small", code), ("two/small", "ok")]
    assert outcome.usage.target == "two/small"


async def test_the_routing_decision_and_every_call_are_kept_with_the_attempt(stand: Stand) -> None:
    stand.script("one", {"status": 500})

    details = (await stand.ask()).usage.details or {}

    assert (details["route"]["policy"], details["route"]["alias"]) == ("priority", "default")
    assert [one["target"] for one in details["route"]["candidates"]] == ["two/small"]
    failed, answered = details["calls"]
    assert failed["message"] == "provider one failed (HTTP 500)"
    assert answered["first_token_seconds"] > 0
    assert answered["seconds"] >= answered["first_token_seconds"]
    assert (answered["tokens_in"], answered["tokens_out"]) == (5, 6)


async def test_a_refused_content_is_the_end_and_no_other_provider_is_asked(stand: Stand) -> None:
    stand.script("one", {"fault": "content_refused"})

    error = await stand.failure()

    assert (type(error), error.code) == (Permanent, ErrorCode.CONTENT_REFUSED)
    assert stand.ledger.counts()["calls"] == 1
    assert error.spent.calls == 1


async def test_a_dialogue_too_long_goes_to_a_model_with_more_room(stand: Stand) -> None:
    stand.script("one", {"fault": "context_too_long"})

    outcome = await stand.ask()

    assert called(outcome) == [("one/small", "context_too_long"), ("two/large", "ok")]


async def test_when_all_fail_the_error_that_may_pass_decides(stand: Stand) -> None:
    stand.script("one", {"status": 503})
    stand.script("two", {"fault": "dead_key"})

    error = await stand.failure()

    assert (type(error), error.code) == (Transient, ErrorCode.PROVIDER_UNAVAILABLE)
    assert [call["target"] for call in error.spent.details["calls"]] == ["one/small", "two/small"]


async def test_a_command_costs_at_most_three_calls_over_all_its_runs(stand: Stand) -> None:
    stand.script("one", {"status": 500}, repeat=True)
    stand.script("two", {"status": 500}, repeat=True)

    first = await stand.failure()
    second = await stand.failure(calls=first.spent.calls)

    assert isinstance(first, Transient)
    assert (type(second), second.code) == (Permanent, ErrorCode.ATTEMPTS_EXHAUSTED)
    assert second.message.startswith("3 calls of providers brought no answer")
    assert stand.ledger.counts()["calls"] == 3


async def test_an_alias_may_allow_fewer_calls(stand: Stand) -> None:
    stand.script("one", {"status": 500}, repeat=True)

    error = await stand.failure(model="patient")

    assert (error.code, stand.ledger.counts()["calls"]) == (ErrorCode.ATTEMPTS_EXHAUSTED, 1)


async def test_an_answer_turned_away_for_its_rate_does_not_count_as_a_call(stand: Stand) -> None:
    stand.script("one", {"status": 429, "retry_after": 20}, repeat=True)

    error = await stand.failure(model="one/small", calls=2)

    assert (type(error), error.code) == (Transient, ErrorCode.PROVIDER_RATE_LIMITED)
    assert isinstance(error, Transient)
    assert error.retry_after_seconds == 20
    assert error.spent.calls == 0


async def test_in_an_outage_commands_wait_and_are_not_failed_for_their_calls(stand: Stand) -> None:
    stand.script("one", {"status": 503}, repeat=True)
    # calls of different commands in a row: an outage, not the fault of one of them
    failures = await asyncio.gather(*(stand.failure(model="one/small", calls=2) for _ in range(8)))
    asked = stand.ledger.counts()["calls"]

    later = await stand.failure(model="one/small", calls=2)

    assert isinstance(failures[-1], Deferred)
    assert (type(later), later.code) == (Deferred, ErrorCode.PROVIDER_UNAVAILABLE)
    assert isinstance(later, Deferred)
    assert later.retry_after_seconds is not None
    assert 0 < later.retry_after_seconds <= 60
    assert stand.ledger.counts()["calls"] <= asked + 1  # at most the one probe


async def test_a_command_put_off_comes_back_before_its_deadline(stand: Stand) -> None:
    stand.script("one", {"status": 429, "retry_after": 3600}, repeat=True)
    await stand.failure(model="one/small")

    error = await stand.failure(model="one/small", seconds=10)

    assert isinstance(error, Deferred)
    assert error.retry_after_seconds is not None
    assert error.retry_after_seconds < 10


async def test_the_model_is_shown_its_conversation_and_the_question_and_answer_are_recorded(stand: Stand) -> None:
    stand.lines += [Line("bot", "Blue.", uuid4()), Line("user", "Which colour has the sky?", uuid4())]

    outcome = await stand.ask(prompt="Why?", conversation_id="room")

    # the scripted provider counts words
    assert outcome.usage.tokens_in == 5 + 1 + 1
    assert [(line.sender, line.conversation_id) for line in outcome.messages] == [("user", "room"), ("bot", "room")]


async def test_only_models_with_the_wanted_capabilities_are_asked(stand: Stand) -> None:
    outcome = await stand.ask(capabilities=["vision"])
    error = await stand.failure(capabilities=["vision", "fast"])

    assert outcome.output["model"] == "large"
    assert error.code is ErrorCode.MODEL_NOT_FOUND


async def test_equal_deterministic_questions_at_once_are_asked_once_where_the_alias_says_so(stand: Stand) -> None:
    stand.script("one", latency_seconds=0.2)

    outcomes = await asyncio.gather(*(stand.ask(model="kept", temperature=0) for _ in range(4)))
    await stand.ask(model="kept", temperature=0.7)

    assert stand.ledger.counts()["calls"] == 2
    assert sorted("cached" in outcome.output for outcome in outcomes) == [False, True, True, True]
    assert sorted(outcome.usage.cost_usd or 0 for outcome in outcomes)[:3] == [0, 0, 0]
    assert len({outcome.output["text"] for outcome in outcomes}) == 1
