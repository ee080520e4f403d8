"""Answers that are not on record yet: found by the next run of their command, and by nobody else."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from contracts.ai.chat import AiSend
from ops.stack.session import Session
from tests.integration.gateway_process import frozen
from workers.ai.answers.call_record import Answer, Asked
from workers.ai.answers.checkpoint import KeptAnswers, open_kept_answers
from workers.handler import Command

ASKED = Asked(
    Answer(
        text="42 \N{SNOWMAN}",
        finish_reason="stop",
        provider="p",
        model="m",
        tokens_in=3,
        tokens_out=1,
        sources=({"url": "https://example.org", "title": "one"},),
    ),
    calls=[{"target": "p/m", "outcome": "ok", "seconds": 1.5}],
    route={"policy": "priority", "candidates": []},
    cost_usd=0.000005,
)


@pytest.fixture
async def kept(services: Session) -> AsyncIterator[KeptAnswers]:
    async with open_kept_answers(services.redis_url) as one:
        yield one


def question(*, attempt: int) -> Command[AiSend]:
    now = datetime.now(UTC)
    payload = AiSend(prompt="why?")
    return Command("demo", uuid4(), "ai.send", "owner", payload, attempt, now, now + timedelta(hours=1))


async def test_the_next_run_of_a_command_finds_the_answer_and_what_it_took(kept: KeptAnswers) -> None:
    first = question(attempt=1)
    await kept.keep(first, ASKED)

    assert await kept.find(replace(first, attempt=2)) == ASKED


async def test_nobody_else_finds_it(kept: KeptAnswers) -> None:
    first = question(attempt=1)
    await kept.keep(first, ASKED)

    assert await kept.find(replace(first, attempt=2, publisher="other")) is None
    assert await kept.find(question(attempt=2)) is None
    assert await kept.find(first) is None  # a first run has none before it


async def test_an_answer_of_another_version_is_none(services: Session, kept: KeptAnswers) -> None:
    second = question(attempt=2)
    await kept.keep(second, ASKED)
    async with Redis.from_url(services.redis_url) as redis:
        await redis.set(f"ish:unrecorded:demo:{second.id}", b'{"answer": {}, "more": 1}')

    assert await kept.find(second) is None


async def test_without_redis_nothing_is_kept_and_nothing_fails(services: Session, kept: KeptAnswers) -> None:
    second = question(attempt=2)
    with frozen(services.redis):
        await kept.keep(second, ASKED)
        assert await kept.find(second) is None
    async with open_kept_answers("") as none:
        await none.keep(second, ASKED)
        assert await none.find(second) is None
