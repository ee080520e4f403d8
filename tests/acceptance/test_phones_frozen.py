"""A worker that is frozen in the middle of using a phone, and wakes up when another has it, does nothing to it any more."""

import json
import signal
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no stubs
import pytest

from tests.acceptance.freezing_worker import FOLDER, SEAMS
from tests.acceptance.outsider import Outsider
from tests.acceptance.phone_fleet import PhoneFleet, all_consumed, holders, phone_fleet
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

COMMANDS = 5
"""For each phone, in each round."""


async def test_frozen_workers_have_no_effect_and_write_no_row_after_the_next_holders_first(
    stage: Stage, demo: Outsider
) -> None:
    await frozen_again_and_again(stage, demo, workers=4, rounds=3)


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_two_hundred_frozen_workers(stage: Stage, demo: Outsider) -> None:
    await frozen_again_and_again(stage, demo, workers=6, rounds=40)


async def frozen_again_and_again(stage: Stage, demo: Outsider, *, workers: int, rounds: int) -> None:
    """In each round all workers but one are frozen, each at a seam; the one that is left uses their phones."""
    folder = stage.folder / "freeze"
    folder.mkdir()
    seams = cycle(SEAMS)
    async with phone_fleet(stage, 2 * workers) as fleet:
        stage.worker("outbox")
        running = [
            stage.start(f"freezing-{one}", "tests.acceptance.freezing_worker", role="worker", **{FOLDER: str(folder)})
            for one in range(workers)
        ]
        load = Load(demo, fleet)
        for _ in range(rounds):
            await until("the phones are shared out", partial(shared_out, stage, fleet, workers), seconds=120)
            ask_to_freeze(folder, list(islice(seams, workers - 1)))
            ids = await load.publish()
            frozen = await all_frozen(folder, workers - 1)
            ids += await load.publish({one["serial"] for one in frozen})  # what is frozen may be the last of its phone
            await until("the others' phones are used", partial(all_used, fleet, load, frozen), seconds=120)

            for one in frozen:
                psutil.Process(one["pid"]).send_signal(signal.SIGCONT)

            await until("all are answered", partial(demo.answered, ids), seconds=120)
            for one in frozen:
                await assert_taken_over(stage, demo, one)
        for serial in fleet.serials:
            taps = fleet.taps(serial)
            assert taps == sorted(set(taps)), serial
        assert all(worker.running for worker in running)
        states = {row["state"] for row in (await stage.records.commands(demo.name)).values()}
        assert states <= {"succeeded", "indeterminate"}
        for worker in running:
            assert await stage.stopped(worker) == 0


@dataclass
class Load:
    """Taps whose places count up, so that each phone's log shows what came when; every second command is a batch."""

    demo: Outsider
    fleet: PhoneFleet
    last: dict[str, int] = field(default_factory=dict)
    """The last tap of each command."""
    _places: Any = field(default_factory=count)

    async def publish(self, serials: Collection[str] = ()) -> list[str]:
        """Publish commands for these phones, for every one if none is named; returns their ids."""
        ids = []
        for number in range(COMMANDS):
            for serial in serials or self.fleet.serials:
                taps = [{"action": "tap", "x": next(self._places), "y": 7} for _ in range(2 if number % 2 else 1)]
                body = {"action": "batch", "actions": taps} if len(taps) > 1 else taps[0]
                message = self.demo.command("android.execute.v1", body | {"device": serial})
                id_ = await self.demo.publish(message, key=f"android.execute.{serial}")
                self.last[id_] = int(str(taps[-1]["x"]))
                ids.append(id_)
        return ids


async def shared_out(stage: Stage, fleet: PhoneFleet, workers: int) -> bool:
    """Whether every worker lives and holds two phones, whose queues it consumes."""
    counts = [len(held) for held in (await holders(stage, fleet.serials)).values()]
    return counts == [2] * workers and await all_consumed(stage, fleet.serials)


def ask_to_freeze(folder: Path, seams: list[str]) -> None:
    """Ask one worker for each of these seams to stop there."""
    for number, seam in enumerate(seams):
        (folder / "new").write_text(seam, encoding="utf-8")
        (folder / "new").rename(folder / f"request-{number}")


async def all_frozen(folder: Path, count: int) -> list[dict[str, Any]]:
    """Who has stopped, with which command on which phone; waited for."""
    await until("they have stopped themselves", lambda: len(list(folder.glob("frozen-*"))) == count)
    frozen = take_marks(folder)
    for one in frozen:
        await until("it stands still", partial(_is_stopped, psutil.Process(one["pid"])))
    return frozen


def take_marks(folder: Path) -> list[dict[str, Any]]:
    """What those who have stopped left behind."""
    marks = list(folder.glob("frozen-*"))
    frozen = [json.loads(mark.read_text(encoding="utf-8")) for mark in marks]
    for mark in marks:
        mark.unlink()
    return frozen


def _is_stopped(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


def all_used(fleet: PhoneFleet, load: Load, frozen: list[dict[str, Any]]) -> bool:
    """Whether each phone of a frozen worker was used by another since."""
    return all(max(fleet.taps(one["serial"]), default=-1) > load.last[one["id"]] for one in frozen)


async def assert_taken_over(stage: Stage, demo: Outsider, frozen: dict[str, Any]) -> None:
    """The command that the frozen worker had in hand was ended by another, which alone wrote about it."""
    attempts = await stage.records.rows(
        "select worker, outcome from attempts where publisher = $1 and id = $2::text::uuid", demo.name, frozen["id"]
    )
    assert [one["outcome"] for one in attempts] == ["indeterminate"], frozen
    assert not any(one["worker"].endswith(f":{frozen['pid']}") for one in attempts), frozen
