"""A worker is killed at each point of a command's way, with many commands in flight; nothing is lost or done twice."""

import json
import signal
from collections import Counter
from typing import Any

import pytest

from ops.simulators.phone.effects import read_effects
from tests.acceptance.outsider import Outsider
from tests.acceptance.records import until
from tests.acceptance.stage import Provider, Stage
from tests.acceptance.test_ledger import assert_ledger_is_the_providers

POINTS = {
    "before_claim": 21,
    "after_claim": 11,
    "after_effect": 5,
    "after_commit": 5,
    "after_ack": 5,
    "after_reply": 5,
}
"""Each point, and which pass of it kills."""

TYPES = {"relay": "relay.v1", "ai": "ai.send.v1", "android": "android.execute.v1"}
COMMANDS = 60
# small batches: while one is at the point, others wait, run and are being committed
SETTINGS = {"ISH_BATCH_SIZE": "10", "ISH_AI_PREFETCH": "60", "ISH_ANDROID_PREFETCH": "60"}


@pytest.mark.parametrize("point", POINTS)
async def test_relays_survive_a_kill(stage: Stage, demo: Outsider, point: str) -> None:
    await relay_round(stage, demo, point)


@pytest.mark.parametrize("point", POINTS)
async def test_questions_survive_a_kill(stage: Stage, demo: Outsider, point: str) -> None:
    await question_round(stage, demo, point)


@pytest.mark.parametrize("point", POINTS)
async def test_phone_actions_survive_a_kill(stage: Stage, demo: Outsider, point: str) -> None:
    await phone_round(stage, demo, point)


@pytest.mark.full
@pytest.mark.parametrize("_round", range(1, 10))
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", ["relay", "question", "phone"])
async def test_nine_more_rounds(stage: Stage, demo: Outsider, kind: str, point: str, _round: int) -> None:
    await {"relay": relay_round, "question": question_round, "phone": phone_round}[kind](stage, demo, point)


async def test_a_question_that_was_never_sent_keeps_its_priority(stage: Stage, demo: Outsider) -> None:
    """A relay with a question dies between its commit and its publishes: the outbox worker sends the same message."""
    provider = await stage.provider()
    body = {"sender": "user", "message": "one", "timestamp": "2025-01-01T00:00:00Z", "ask": {"model": "steady"}}
    id_ = await demo.publish(demo.command("relay.v1", body, headers={"x-priority": "batch"}))

    doomed = stage.worker("relay", ISH_KILL_POINT="after_ack@1")
    assert await stage.ended(doomed) == -signal.SIGKILL
    stage.worker("outbox")
    stage.worker("ai", ISH_PROVIDERS_FILE=str(provider.providers_file))

    await until("the relay is answered", lambda: demo.answered([id_]))
    (question,) = demo.reply(id_)["output"]["follow_ups"]
    await until("the question is finished", lambda: stage.records.finished(demo.name, [question]))
    [row] = await stage.records.rows("select state, priority, routing_key from commands where id = $1::uuid", question)
    assert row == {"state": "succeeded", "priority": "batch", "routing_key": "ai.send.batch"}


async def relay_round(stage: Stage, demo: Outsider, point: str) -> None:
    bodies = [
        {"sender": "user", "message": f"line {number}", "timestamp": "2025-01-01T00:00:00Z"}
        for number in range(COMMANDS)
    ]

    ids = await crash_and_recover(stage, demo, "relay", point, bodies=bodies)

    lines = await stage.records.rows(
        "select command_id::text, count(*) from messages where publisher = $1 group by 1", demo.name
    )
    assert {line["command_id"] for line in lines} >= set(ids)
    assert {line["count"] for line in lines} == {1}
    await all_in_order(stage, demo, ids, indeterminate=set())


async def question_round(stage: Stage, demo: Outsider, point: str) -> None:
    # the answers come apart, so that there are always some on their way
    provider = await stage.provider(latency_seconds=0.3)
    await provider.script(match={"contains": "slow"}, latency_seconds=0.6)
    bodies = [
        {"model": "steady", "prompt": f"{'slow' if number % 2 else 'quick'} {number}"} for number in range(COMMANDS)
    ]

    settings = {"ISH_PROVIDERS_FILE": str(provider.providers_file)}
    ids = await crash_and_recover(stage, demo, "ai", point, bodies=bodies, **settings)

    await all_in_order(stage, demo, ids, indeterminate=set())
    await assert_calls_within_attempts(stage, demo, provider, ids)
    # an answer that the provider had sent and the worker had not received is billed again, if keys mean nothing to it
    await assert_ledger_is_the_providers(stage, demo, provider, keys_honoured=True)


async def phone_round(stage: Stage, demo: Outsider, point: str) -> None:
    bodies: list[dict[str, Any]] = [
        {"action": "tap", "x": number, "y": 7} if number % 2 else {"action": "getprop", "name": "ro.product.model"}
        for number in range(COMMANDS)
    ]
    async with stage.phone() as effects:
        ids = await crash_and_recover(stage, demo, "android", point, bodies=bodies)

        taps = Counter(int(effect["argv"][-2]) for effect in read_effects(effects) if effect["action"] == "tap")
    tapped = {ids[number]: taps[number] for number in range(COMMANDS) if number % 2}
    unknown = await all_in_order(stage, demo, ids, indeterminate=set(tapped))
    assert all(count == 1 for id_, count in tapped.items() if id_ not in unknown)
    assert all(tapped[id_] <= 1 for id_ in unknown)


async def crash_and_recover(
    stage: Stage, demo: Outsider, pool: str, point: str, *, bodies: list[dict[str, Any]], **settings: str
) -> list[str]:
    """Kill a worker at a point with the commands in flight, let another finish them; returns the commands' ids."""
    mark = stage.folder / "mark"
    mark.unlink(missing_ok=True)
    outbox = stage.worker("outbox")
    ids = await demo.publish_all([demo.command(TYPES[pool], body) for body in bodies])

    doomed = {"ISH_KILL_POINT": f"{point}@{POINTS[point]}", "ISH_KILL_MARK": str(mark)}
    first = stage.worker(pool, "first", **SETTINGS, **settings, **doomed)
    assert await stage.ended(first) == -signal.SIGKILL
    name, _, in_flight = mark.read_text(encoding="utf-8").split()
    assert name == point
    assert int(in_flight.removeprefix("in_flight=")) >= 20

    second = stage.worker(pool, "second", **SETTINGS, **settings)
    await until("all are finished", lambda: stage.records.finished(demo.name, ids))
    await until("all are answered", lambda: demo.answered(ids))
    assert await stage.stopped(second) == 0
    await until("nothing waits", stage.queues.empty)
    assert await stage.stopped(outbox) == 0
    return ids


async def all_in_order(stage: Stage, demo: Outsider, ids: list[str], *, indeterminate: set[str]) -> set[str]:
    """One terminal row each, equal replies, no dead letters; returns the commands whose effect is unknown."""
    commands = await stage.records.commands(demo.name)
    unknown = {id_ for id_ in ids if commands[id_]["state"] == "indeterminate"}
    assert unknown <= indeterminate
    assert all(commands[id_]["crashes"] for id_ in unknown)
    assert {(commands[id_]["state"], commands[id_]["error_code"]) for id_ in ids if id_ not in unknown} == {
        ("succeeded", None)
    }
    for id_ in ids:
        assert demo.reply(id_) == json.loads(commands[id_]["result"])
    assert await stage.records.dead_letters(demo.name) == []
    return unknown


async def assert_calls_within_attempts(stage: Stage, demo: Outsider, provider: Provider, ids: list[str]) -> None:
    commands, calls = await stage.records.commands(demo.name), provider.calls()
    for id_ in ids:
        assert 1 <= calls[id_] <= commands[id_]["attempt"]
