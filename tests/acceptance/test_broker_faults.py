"""The broker is killed, or loses a queue, under load: nothing that was accepted is lost, and nothing is done twice."""

import asyncio
from collections import Counter
from functools import partial

import httpx
import pytest

from contracts.topology import RELAY
from ops.stack.child import Child
from tests.acceptance.load import Sent, posting, publishing
from tests.acceptance.outsider import Account, connected
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

IN_FLIGHT = 10
"""More than a load has waiting for a confirm at any moment."""


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
        earlier = list(published.accepted)
        await stage.queues.delete(RELAY)
        await stage.line_of(outbox, "queue_redeclared")
        before = len(posted.accepted), len(published.accepted)
        await until(
            "both are accepted again",
            lambda: len(posted.accepted) >= before[0] + 100 and len(published.accepted) >= before[1] + 30,
        )

    # RabbitMQ confirms what it routes to a queue while that is being deleted, and drops it: what an outside system
    # publishes in that moment nobody can save, while the gateway's commands are on record
    published.accepted = earlier + published.accepted[before[1] + IN_FLIGHT :]
    await all_finish_once(stage, account, posted=posted, published=published)
    assert worker.running


@pytest.mark.full
async def test_a_worker_consumes_again_each_time_its_queue_is_deleted(stage: Stage, account: Account) -> None:
    outbox = stage.worker("outbox")
    worker = stage.worker("relay")

    async with publishing(account, per_second=100) as published:
        for deletions in range(10):
            # RabbitMQ does not always say that a consumer is gone; one that hears nothing has to notice by itself
            await consumes(stage, account, published)
            await stage.queues.delete(RELAY)
            await until("the queue is back", partial(says_more_than, outbox, "queue_redeclared", deletions))
        await consumes(stage, account, published)

    assert worker.running


async def consumes(stage: Stage, account: Account, published: Sent) -> None:
    """Wait until commands published from now on are finished."""
    now = len(published.accepted) + IN_FLIGHT
    await until("more are accepted", lambda: len(published.accepted) >= now + 60)
    await until(
        "they finish", lambda: stage.records.finished(account.name, published.accepted[now : now + 60]), seconds=60
    )


def says_more_than(child: Child, text: str, times: int) -> bool:
    return child.spec.log_file.read_text(encoding="utf-8").count(text) > times


async def all_finish_once(stage: Stage, account: Account, *, posted: Sent, published: Sent) -> None:
    """Every accepted command has one terminal row and one line, and every published one equal replies."""
    for publisher, sent in (("gateway", posted), (account.name, published)):
        try:
            await until("all finish", partial(stage.records.finished, publisher, sent.accepted), seconds=120)
        except AssertionError:
            assert await stage.records.unfinished(publisher, sent.accepted) == {}
    await until("nothing waits", stage.queues.empty)

    for publisher, sent in (("gateway", posted), (account.name, published)):
        commands = await stage.records.commands(publisher)
        assert Counter(commands[id_]["state"] for id_ in sent.accepted) == {"succeeded": len(set(sent.accepted))}
        lines = await stage.records.rows(
            "select command_id::text as id, count(*) from messages m join commands c on c.id = m.command_id"
            " and c.publisher = m.publisher where m.publisher = $1 and c.kind = 'relay' group by 1",
            publisher,
        )
        assert {line["count"] for line in lines} == {1}
        assert {line["id"] for line in lines} >= set(sent.accepted)
    async with connected(account) as demo:
        await until("the published ones are answered", lambda: demo.answered(published.accepted))
        assert all(demo.reply(id_)["status"] == "succeeded" for id_ in published.accepted)
    assert await stage.records.dead_letters(account.name) == []
