import asyncio

import pytest

from contracts.errors import Cancelled
from workers.cancellation import Cancellation

PATIENCE_SECONDS = 30


async def stays(cancellation: Cancellation, begun: asyncio.Event) -> None:
    async with cancellation.interruptible():
        begun.set()
        await asyncio.Event().wait()


async def test_what_may_be_broken_off_is_broken_off_at_once() -> None:
    cancellation, begun = Cancellation(), asyncio.Event()
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_outcome(cancellation, begun))
        await begun.wait()
        cancellation.request()
        cancellation.request()

    assert isinstance(running.result(), Cancelled)
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def _outcome(cancellation: Cancellation, begun: asyncio.Event) -> BaseException | None:
    try:
        async with cancellation.interruptible():
            await stays(cancellation, begun)
    except Cancelled as error:
        return error
    return None


async def test_nothing_is_begun_after_the_request() -> None:
    cancellation = Cancellation()
    cancellation.request()

    with pytest.raises(Cancelled):
        cancellation.check()
    with pytest.raises(Cancelled):
        await stays(cancellation, asyncio.Event())


async def test_what_ended_before_the_request_is_not_touched() -> None:
    cancellation = Cancellation()
    async with cancellation.interruptible():
        await asyncio.sleep(0)
    cancellation.request()

    await asyncio.sleep(0)


async def test_a_time_limit_inside_is_no_cancellation() -> None:
    with pytest.raises(TimeoutError):
        async with Cancellation().interruptible(), asyncio.timeout(0):
            await asyncio.Event().wait()
