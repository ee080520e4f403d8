"""A command that kills whoever runs it is found out, and the many that were in flight beside it are not blamed."""

import signal

import pytest

from tests.acceptance.outsider import Outsider
from tests.acceptance.poisoned_worker import POISON
from tests.acceptance.stage import Stage

INNOCENT = 50
MOST_CRASHES = 5
"""Three beside others, then two alone."""


async def test_poison_is_given_up_and_the_fifty_beside_it_succeed(stage: Stage, demo: Outsider) -> None:
    await poisoned(stage, demo)


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_poison_is_found_out_although_each_take_over_goes_through_a_wait_queue(
    stage: Stage, demo: Outsider
) -> None:
    # with this lease a crashed worker's commands are held longer than the local wait, and the broker's count is lost
    await poisoned(stage, demo, ISH_LEASE_SECONDS="6", ISH_HEARTBEAT_SECONDS="1.5")


async def poisoned(stage: Stage, demo: Outsider, **settings: str) -> None:
    stage.worker("outbox")
    prompts = ["hello"] * INNOCENT
    prompts.insert(INNOCENT // 2, POISON)
    ids = await demo.publish_all([demo.command("ai.send.v1", {"prompt": prompt}) for prompt in prompts])
    poison = ids[INNOCENT // 2]

    crashes = 0
    worker = stage.start(
        "worker-0", "tests.acceptance.poisoned_worker", role="worker", ISH_AI_PREFETCH="60", **settings
    )
    while not (await stage.records.finished(demo.name, ids) and demo.answered(ids)):
        if not worker.running:
            assert worker.exit_status == -signal.SIGKILL
            crashes += 1
            assert crashes <= MOST_CRASHES
            worker = stage.start(
                f"worker-{crashes}", "tests.acceptance.poisoned_worker", role="worker", ISH_AI_PREFETCH="60", **settings
            )
        await stage.pause()

    assert demo.reply(poison)["error"]["code"] == "poison"
    commands = await stage.records.commands(demo.name)
    assert commands.pop(poison)["state"] == "failed"
    assert {command["state"] for command in commands.values()} == {"succeeded"}
    # it landed: they were in flight when it struck
    assert sum(command["crashes"] > 0 for command in commands.values()) >= INNOCENT // 2
    assert crashes == MOST_CRASHES
    letters = await stage.records.dead_letters(demo.name)
    assert [(letter["reason"], letter["message_id"]) for letter in letters] == [("poison", poison)]
