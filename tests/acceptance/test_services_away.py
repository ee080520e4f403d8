"""PostgreSQL or Redis goes away under load: what was accepted finishes, and the gateway goes on accepting."""

import time

import pytest
import redis.asyncio

from contracts.topology import RELAY
from tests.acceptance.load import RELAY as BODY
from tests.acceptance.outsider import Outsider
from tests.acceptance.records import until
from tests.acceptance.stage import Stage


@pytest.mark.parametrize(
    "away_seconds", [pytest.param(1, id="briefly"), pytest.param(10, id="for 10 s", marks=pytest.mark.full)]
)
async def test_without_postgres_commands_are_accepted_and_held_and_all_finish_after(
    stage: Stage, demo: Outsider, away_seconds: float
) -> None:
    client = await stage.gateway()
    worker = stage.worker("relay")
    await stage.line_of(worker, "consumer_started")
    warm = await client.post("/api/relay", json=BODY, params={"wait": 30})
    assert warm.json()["status"] == "succeeded"

    stage.services.postgres.stop()
    away_until = time.monotonic() + away_seconds
    answers = [await client.post("/api/relay", json=BODY) for _ in range(30)]
    while time.monotonic() < away_until:
        answers.append(await client.post("/api/relay", json=BODY))
        await stage.pause()
    published = await demo.publish_all([demo.command("relay.v1", BODY) for _ in range(30)])

    async def all_held() -> bool:
        return await stage.queues.unacked(RELAY) == len(answers) + len(published)

    # the broker's own figures: all of them delivered, none of them acked
    await until("the worker holds all of them", all_held)
    assert not any(demo.replies.values())
    assert (await stage.queues.ready([RELAY])) == {RELAY: 0}
    await stage.back(stage.services.postgres)

    assert {answer.status_code for answer in answers} == {202}
    await until("the published ones are answered", lambda: demo.answered(published))
    for answer in answers:
        done = await client.get(answer.headers["location"], params={"wait": 30})
        assert (done.status_code, done.json()["status"]) == (200, "succeeded")
    assert worker.running
    assert {one["attempt"] for one in (await stage.records.commands(demo.name)).values()} == {1}
    assert await stage.stopped(worker) == 0
    await until("nothing waits", stage.queues.empty)


async def test_a_tap_is_not_lost_or_repeated_when_postgres_goes_away_around_it(stage: Stage, demo: Outsider) -> None:
    async with stage.phone() as effects:
        stage.worker("outbox")  # gives the phone its queue
        worker = stage.worker("android", ISH_ANDROID_PREFETCH="40")
        ids = await demo.publish_all(
            [demo.command("android.execute.v1", {"action": "tap", "x": number, "y": 7}) for number in range(40)]
        )
        await until("the first taps have happened", lambda: effects.exists() and effects.read_text().count("\n") >= 3)

        stage.services.postgres.stop()
        await stage.back(stage.services.postgres)
        await until("all are answered", lambda: demo.answered(ids))

        taps = effects.read_text(encoding="utf-8").count('"action": "tap"')
    commands = await stage.records.commands(demo.name)
    # the worker lives, so that it knows what it did
    assert {one["state"] for one in commands.values()} == {"succeeded"}
    assert taps == len(ids)
    assert worker.running


async def test_without_redis_or_what_it_held_no_accepted_command_is_unknown(stage: Stage) -> None:
    client = await stage.gateway()
    stage.worker("relay")
    places = [(await client.post("/api/relay", json=BODY)).headers["location"] for _ in range(5)]

    async def all_succeed() -> bool:
        answers = [await client.get(place, params={"wait": 30}) for place in places]
        assert {answer.status_code for answer in answers} == {200}
        return {answer.json()["status"] for answer in answers} == {"succeeded"}

    await until("they succeed", all_succeed)
    async with redis.asyncio.from_url(stage.services.redis_url) as connection:
        assert await connection.dbsize()  # results are cached
        await connection.flushall()
    assert await all_succeed()
    stage.services.redis.kill()
    try:
        assert await all_succeed()
        places += [(await client.post("/api/relay", json=BODY)).headers["location"] for _ in range(5)]
        await until("those without Redis succeed too", all_succeed)
    finally:
        await stage.back(stage.services.redis)
    assert await all_succeed()
