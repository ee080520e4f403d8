"""A job's rounds go on whatever happens in one."""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from contracts.amqp.broker import BrokerAway
from workers.outbox.schedule import repeat


async def rounds(outcomes: Iterator[bool | Exception]) -> int:
    """Run a job through these outcomes; returns how many rounds there were."""
    count, finished = 0, asyncio.Event()

    async def work() -> bool:
        nonlocal count
        count += 1
        outcome = next(outcomes, None)
        if outcome is None:
            finished.set()
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome
        return bool(outcome)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(repeat("job", work, every_seconds=0.01, backoff_seconds=0.01))
        await finished.wait()
        task.cancel()
    return count


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (BrokerAway("gone"), "broker_unreachable"),
        (TimeoutError(), "postgres_unreachable"),
        (ZeroDivisionError(), "outbox_job_failed"),
    ],
)
async def test_an_error_is_told_once_per_episode_and_the_job_goes_on(error: Exception, event: str) -> None:
    with capture_logs() as logs:
        count = await rounds(iter([error, error, False, True, error, False]))

    assert count == 7
    assert [entry["event"] for entry in logs] == [event, "outbox_job_recovered", event, "outbox_job_recovered"]


async def test_more_work_is_begun_without_a_pause() -> None:
    async with asyncio.timeout(30):
        await rounds(iter([True] * 10_000))
