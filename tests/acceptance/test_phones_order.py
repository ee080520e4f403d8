"""Commands of one phone run one at a time in the order of their acceptance, whatever becomes of the workers."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from ops.stack.child import Child
from tests.acceptance.outsider import Outsider
from tests.acceptance.phone_fleet import PhoneFleet, all_consumed, overlaps, phone_fleet
from tests.acceptance.records import until
from tests.acceptance.stage import Stage


async def test_order_and_exclusivity_survive_a_kill(stage: Stage, demo: Outsider) -> None:
    await killed_again_and_again(stage, demo, workers=2, phones=6, commands=15, swipe_ms=400, every_seconds=2, most=1)


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_order_and_exclusivity_survive_a_kill_every_five_seconds(stage: Stage, demo: Outsider) -> None:
    await killed_again_and_again(
        stage, demo, workers=4, phones=20, commands=50, swipe_ms=2500, every_seconds=5, most=50
    )


async def test_order_survives_a_restart_of_the_broker(stage: Stage, demo: Outsider) -> None:
    async with phone_fleet(stage, 4) as fleet:
        stage.worker("outbox")
        running = [stage.worker("android", f"android-{number}") for number in range(2)]
        await until("all phones are ready", lambda: all_consumed(stage, fleet.serials))
        sent = await publish_in_order(demo, fleet, 30, swipe_ms=300)
        await until("all phones are used", lambda: all(map(fleet.taps, fleet.serials)))

        stage.services.broker.stop()
        await stage.back(stage.services.broker)
        ids = [id_ for of_phone in sent.values() for id_ in of_phone]
        await until("all are finished", lambda: stage.records.finished(demo.name, ids), seconds=120)

        rows = await stage.records.commands(demo.name)
        for serial, of_phone in sent.items():
            effects = fleet.effects(serial, actions=("swipe", "tap"))
            assert_in_order([int(effect["argv"][2]) for effect in effects], [rows[id_] for id_ in of_phone])
            assert overlaps(effects) == []
        # the workers live, so that they know what they did
        assert {row["state"] for row in rows.values()} == {"succeeded"}
        assert all(worker.running for worker in running)


async def killed_again_and_again(
    stage: Stage,
    demo: Outsider,
    *,
    workers: int,
    phones: int,
    commands: int,
    swipe_ms: int,
    every_seconds: float,
    most: int,
) -> None:
    async with phone_fleet(stage, phones) as fleet:
        stage.worker("outbox")
        running = [stage.worker("android", f"android-{number}") for number in range(workers)]
        await until("all phones are ready", lambda: all_consumed(stage, fleet.serials))

        sent = await publish_in_order(demo, fleet, commands, swipe_ms=swipe_ms)
        kills = await kill_until_finished(stage, demo, running, sent, every_seconds=every_seconds, most=most)
        ids = [id_ for of_phone in sent.values() for id_ in of_phone]
        await until("all are answered", lambda: demo.answered(ids))

        assert kills
        rows = await stage.records.commands(demo.name)
        for serial, of_phone in sent.items():
            effects = fleet.effects(serial, actions=("swipe", "tap"))
            assert_in_order([int(effect["argv"][2]) for effect in effects], [rows[id_] for id_ in of_phone])
            assert overlaps(effects) == []
    unknown = [row for row in rows.values() if row["state"] == "indeterminate"]
    assert all(row["crashes"] for row in unknown)
    assert len(unknown) <= kills * phones
    assert {row["state"] for row in rows.values()} <= {"succeeded", "indeterminate"}
    assert await stage.records.dead_letters(demo.name) == []


def body_of(number: int, *, swipe_ms: int) -> dict[str, Any]:
    """Three sorts in turn; only the third may be run twice. The number is the effect's x."""
    match number % 3:
        case 0:
            return {"action": "swipe", "x1": number, "y1": 7, "x2": number, "y2": 9, "duration_ms": swipe_ms}
        case 1:
            return {"action": "tap", "x": number, "y": 7}
        case _:
            return {"action": "getprop", "name": "ro.product.model"}


async def publish_in_order(demo: Outsider, fleet: PhoneFleet, count: int, *, swipe_ms: int) -> dict[str, list[str]]:
    """Publish commands to each phone's own key, one after another; returns their ids in that order."""

    async def publish(serial: str) -> list[str]:
        return [
            await demo.publish(
                demo.command("android.execute.v1", body_of(number, swipe_ms=swipe_ms) | {"device": serial}),
                key=f"android.execute.{serial}",
            )
            for number in range(count)
        ]

    return dict(zip(fleet.serials, await asyncio.gather(*map(publish, fleet.serials)), strict=True))


async def kill_until_finished(
    stage: Stage,
    demo: Outsider,
    running: list[Child],
    sent: dict[str, list[str]],
    *,
    every_seconds: float,
    most: int,
) -> int:
    """Kill a worker now and then and start another, until everything is finished; returns how many were killed."""
    ids = [id_ for of_phone in sent.values() for id_ in of_phone]
    deadline, kill_at, kills = time.monotonic() + 300, time.monotonic() + every_seconds / 2, 0
    while not await stage.records.finished(demo.name, ids):
        assert time.monotonic() < deadline, Counter(
            row["state"] for row in (await stage.records.commands(demo.name)).values()
        )
        if kills < most and time.monotonic() >= kill_at:
            victim = running.pop(random.randrange(len(running)))
            victim.send(signal.SIGKILL)
            await stage.ended(victim)
            kills += 1
            running.append(stage.worker("android", f"android-again-{kills}"))
            kill_at += every_seconds
        await asyncio.sleep(0.1)
    return kills


def assert_in_order(done: Sequence[int], rows: Sequence[dict[str, Any]]) -> None:
    """Each effect at most once and in order; of what succeeded exactly once."""
    assert list(done) == sorted(set(done))
    for number, row in enumerate(rows):
        effects = 0 if row["repeatable"] else done.count(number)
        if row["state"] == "succeeded":
            assert effects == (not row["repeatable"]), f"command {number}"
        else:
            assert not row["repeatable"], f"command {number} may be repeated, and is {row['state']}"
