"""A part that fails is started over, and only the watchdog ends a process."""

import asyncio

import pytest
from structlog.testing import capture_logs

from contracts.metrics import RESTARTS
from contracts.restarting import PartGone, restarting


def restarts(name: str) -> float:
    return float(RESTARTS.labels(name)._value.get())  # noqa: SLF001  # prometheus_client has no other way


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("?"), RuntimeError("TCPTransport closed"), asyncio.CancelledError()]
)
async def test_a_part_that_fails_is_logged_counted_and_started_over(error: BaseException) -> None:
    runs, before = 0, restarts("test part")

    async def part() -> None:
        nonlocal runs
        runs += 1
        if runs < 4:
            raise error

    with capture_logs() as logs:
        await restarting("test part", part, first_delay_seconds=0.001)

    assert runs == 4
    assert restarts("test part") - before == 3
    assert [entry["event"] for entry in logs] == ["loop_restarted"] * 3
    waits = [entry["in_seconds"] for entry in logs]
    assert waits == sorted(waits)


async def test_a_part_that_keeps_failing_ends_the_process() -> None:
    async def part() -> None:
        raise ZeroDivisionError

    with pytest.raises(PartGone, match=r"test part has failed .*ZeroDivisionError"):
        await restarting("test part", part, give_up_seconds=0.02, first_delay_seconds=0.01)


async def test_a_part_that_is_cancelled_ends() -> None:
    task = asyncio.ensure_future(restarting("test part", asyncio.Event().wait))  # type: ignore[arg-type]  # its bool is never seen
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
