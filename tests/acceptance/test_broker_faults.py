"""The broker is killed, or loses a queue, under load: nothing that was accepted is lost, and nothing is done twice."""

import asyncio
from collections import Counter

import httpx
import pytest

from contracts.topology import RELAY
from tests.acceptance.load import Sent, posting, publishing
from tests.acceptance.outsider import Account, connected
from tests.acceptance.records import until
from tests.acceptance.stage import Stage


async def test_the_broker_is_killed_under_load(stage: Stage, account: Account) -> None:
    await broker_killed(stage, account, down_seconds=3, per_second=50)


@pytest.mark.full
async def test_the_broker_is_down_for_ten_seconds_under_a_hundred_a_second(stage: Stage, account: Account) -> None:
    await broker_killed(stage, account, down_seconds=10, per_second=100)


async def broker_killed(stage: Stage, account: Account, *, down_seconds: float, per_second: float) -> None:
    client = await stage.gateway()
    stage.worker("outbox")
    worker = stage.worker("relay")

    async with (
        posting(client, per_second=per_second / 2) as posted,
        publishing(account, per_second=per_second / 2) as published,
    ):
        await until("both are accepted", lambda: min(len(posted.accepted), len(published.accepted)) >= per_second)
        stage.services.broker.kill()
        await asyncio.sleep(down_seconds)  # the length of the outage is what is asked for
        await stage.back(stage.services.broker)
        before = len(posted.accepted), len(published.accepted)
        await until(
            "both are accepted again",
            lambda: (
                len(posted.accepted) >= before[0] + per_second and len(published.accepted) >= before[1] + per_second
            ),
        )

    assert published.unknown
    assert posted.refused
    for refusal in posted.refused:
        assert refusal.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert int(refusal.headers["retry-after"]) >= 1
    await all_finish_once(stage, account, posted=posted, published=published)
    assert worker.running


async def test_a_work_queue_is_deleted_under_load(stage: Stage, account: Account) -> None:
    client = await stage.gateway()
    outbox = stage.worker("outbox")
    worker = stage.worker("relay")
    # what an outside system published and no worker has received is nowhere but in the queue
    await stage.line_of(worker, "consumer_started")

    async with posting(client, per_second=100) as posted, publishing(account, per_second=30) as published:
        await until("both are accepted", lambda: min(len(posted.accepted), len(published.accepted)) >= 60)
        await stage.queues.delete(RELAY)
        await stage.line_of(outbox, "queue_redeclared")
        before = len(posted.accepted), len(published.accepted)
        await until(
            "both are accepted again",
            lambda: len(posted.accepted) >= before[0] + 100 and len(published.accepted) >= before[1] + 30,
        )

    await all_finish_once(stage, account, posted=posted, published=published)
    assert worker.running


async def all_finish_once(stage: Stage, account: Account, *, posted: Sent, published: Sent) -> None:
    """Every accepted command has one terminal row and one line, and every published one equal replies."""
    await until("the posted ones finish", lambda: stage.records.finished("gateway", posted.accepted), seconds=120)
    await until("the published ones finish", lambda: stage.records.finished(account.name, published.accepted))
    await until("nothing waits", stage.queues.empty)

    for publisher, sent in (("gateway", posted), (account.name, published)):
        commands = await stage.records.commands(publisher)
        assert Counter(commands[id_]["state"] for id_ in sent.accepted) == {"succeeded": len(set(sent.accepted))}
        lines = await stage.records.rows(
            "select command_id::text as id, count(*) from messages where publisher = $1 group by 1", publisher
        )
        assert {line["count"] for line in lines} == {1}
        assert {line["id"] for line in lines} >= set(sent.accepted)
    async with connected(account) as demo:
        await until("the published ones are answered", lambda: demo.answered(published.accepted))
        assert all(demo.reply(id_)["status"] == "succeeded" for id_ in published.accepted)
    assert await stage.records.dead_letters(account.name) == []
