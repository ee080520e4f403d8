"""A running action that its owner cancels: what is stopped, what is finished first, and what is told of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contracts.android.command import action_from
from contracts.errors import Cancelled
from tests.integration.one_phone import PATIENCE_SECONDS, OnePhone
from workers.android.runner import run_action
from workers.cancellation import Cancellation

NOWHERE = {"text": "nowhere to be found"}


async def cancelled(phone: OnePhone, when: Callable[[], bool], **fields: Any) -> Cancelled:
    """Run an action, cancel it when something is so, and return what it ends with."""
    cancellation = Cancellation()
    async with asyncio.timeout(PATIENCE_SECONDS), cancelling(cancellation, when):
        with pytest.raises(Cancelled) as caught:
            await run_action(
                phone.transport,
                action_from(fields),
                deadline=time.monotonic() + PATIENCE_SECONDS,
                fence=None,
                artifact_limit_bytes=phone.limit_bytes,
                cancellation=cancellation,
            )
    return caught.value


@asynccontextmanager
async def cancelling(cancellation: Cancellation, when: Callable[[], bool]) -> AsyncIterator[None]:
    async def watch() -> None:
        while not when():  # noqa: ASYNC110  # another thread's and process's doing
            await asyncio.sleep(0.01)
        cancellation.request()

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        yield
        watching.cancel()


def done(phone: OnePhone, kind: str) -> bool:
    return phone.log.exists() and bool(phone.effects(kind))


async def test_a_recording_is_stopped_and_leaves_nothing_behind(phone: OnePhone) -> None:
    error = await cancelled(phone, lambda: done(phone, "record"), action="record", seconds=100, timeout_seconds=120)

    assert error.details["had_effect"] is False
    assert (await phone.shell("ls /data/local/tmp")).split() == []


async def test_waiting_for_what_does_not_come_is_stopped(phone: OnePhone) -> None:
    phone.device.control.change(slow_seconds={"uiautomator": 1})

    error = await cancelled(
        phone, lambda: phone.device.running > 0, action="wait_for", selector=NOWHERE, timeout_seconds=100
    )

    assert error.details["had_effect"] is False


async def test_a_batch_is_stopped_between_its_actions_and_tells_which_were_done(phone: OnePhone) -> None:
    error = await cancelled(
        phone,
        lambda: done(phone, "tap"),
        action="batch",
        timeout_seconds=100,
        actions=[
            {"action": "tap", "x": 1, "y": 1},
            {"action": "wait_for", "selector": NOWHERE, "timeout_seconds": 90},
            {"action": "tap", "x": 2, "y": 2},
        ],
    )

    assert len(phone.effects("tap")) == 1
    assert error.details["failed_action"] == 1
    assert [one["action"] for one in error.details["results"]] == ["tap"]
    assert error.details["had_effect"] is True


async def test_what_must_not_be_cut_in_two_is_finished_first(phone: OnePhone) -> None:
    phone.device.control.change(slow_seconds={"input": 1})
    typed = {"action": "text", "text": "hello"}

    error = await cancelled(
        phone,
        lambda: done(phone, "text"),
        action="batch",
        actions=[typed, typed],
    )

    assert len(phone.effects("text")) == 1
    assert [one["action"] for one in error.details["results"]] == ["text"]


async def test_a_flow_is_stopped_between_its_steps_and_tells_where(phone: OnePhone) -> None:
    phone.device.control.change(slow_seconds={"uiautomator": 1})

    error = await cancelled(
        phone, lambda: phone.device.running > 0, action="flow", name="perplexity.ask", inputs={"question": "Why?"}
    )

    assert error.details["flow"] == "perplexity.ask"
    assert error.details["step"] >= 1
