"""Phones are shared out among the workers that live, soon after one comes or goes."""

import signal
from functools import partial

import pytest

from tests.acceptance.phone_fleet import PhoneFleet, holders, phone_fleet
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

LEASE = {"ISH_LEASE_SECONDS": "6", "ISH_HEARTBEAT_SECONDS": "1.5"}
"""The defaults: how soon a death is noticed depends on them."""


async def test_phones_are_shared_out_among_three_workers(stage: Stage) -> None:
    await shared_out(stage, workers=3, phones=6)


@pytest.mark.full
async def test_twenty_phones_are_shared_out_among_four_workers(stage: Stage) -> None:
    await shared_out(stage, workers=4, phones=20)


async def shared_out(stage: Stage, *, workers: int, phones: int) -> None:
    async with phone_fleet(stage, phones) as fleet:
        running = [stage.worker("android", f"android-{number}", **LEASE) for number in range(workers - 1)]
        await until("they share", partial(is_fair, stage, fleet, workers - 1))

        running.append(stage.worker("android", "joined", **LEASE))
        await until("the new one has its share", partial(is_fair, stage, fleet, workers))

        victim = running.pop(0)
        victim.send(signal.SIGKILL)
        await stage.ended(victim)
        await until("the dead one's phones are shared out", partial(is_fair, stage, fleet, workers - 1))

        assert await stage.stopped(running.pop()) == 0
        await until("the stopped one's phones are shared out", partial(is_fair, stage, fleet, workers - 2))
        assert all(worker.running for worker in running)


async def is_fair(stage: Stage, fleet: PhoneFleet, workers: int) -> bool:
    """Whether so many workers hold all phones, and none more than one phone more than another."""
    counts = [len(held) for held in (await holders(stage, fleet.serials, lease_seconds=6)).values()]
    return len(counts) == workers and sum(counts) == len(fleet.serials) and max(counts) - min(counts) <= 1
