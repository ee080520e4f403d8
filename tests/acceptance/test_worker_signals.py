"""A worker that is frozen, asked to stop, or left without its queue."""

import signal
from collections.abc import AsyncIterator

import pytest

from contracts.amqp.broker import apply_topology
from contracts.topology import RELAY
from tests.acceptance.outsider import Outsider
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

RELAY_BODY = {"sender": "user", "message": "hello", "timestamp": "2025-01-01T00:00:00Z"}


async def test_a_frozen_workers_commands_are_taken_over_and_its_late_results_are_refused(
    stage: Stage, demo: Outsider
) -> None:
    provider = await stage.provider(latency_seconds=1.5)
    settings = {"ISH_PROVIDERS_FILE": str(provider.providers_file)}
    first = stage.worker("ai", "first", **settings)
    ids = await demo.publish_all(
        [demo.command("ai.send.v1", {"model": "steady", "prompt": str(number)}) for number in range(30)]
    )
    await until("all are being answered", lambda: len(provider.calls()) == len(ids))

    first.send(signal.SIGSTOP)
    second = stage.worker("ai", "second", **settings)
    # the broker gives them to another once the frozen worker has missed its heartbeats
    await until("all are taken over and finished", lambda: stage.records.finished(demo.name, ids))
    first.send(signal.SIGCONT)

    async def refused() -> bool:
        return await stage.metric("first", "ish_fenced_commits_total") == len(ids)

    await until("the late results are refused", refused)
    assert await stage.metric("second", "ish_takeovers_total") == len(ids)
    await until("all are answered", lambda: demo.answered(ids))
    commands = await stage.records.commands(demo.name)
    assert {(one["state"], one["attempt"], one["crashes"]) for one in commands.values()} == {("succeeded", 2, 1)}
    assert {demo.reply(id_)["attempts"] for id_ in ids} == {2}
    assert await stage.stopped(first) == 0
    assert await stage.stopped(second) == 0
    await until("nothing waits", stage.queues.empty)


async def test_a_worker_asked_to_stop_finishes_what_it_runs_and_leaves_the_rest(stage: Stage, demo: Outsider) -> None:
    provider = await stage.provider(latency_seconds=0.5)
    settings = {"ISH_PROVIDERS_FILE": str(provider.providers_file), "ISH_AI_PREFETCH": "20"}
    first = stage.worker("ai", "first", **settings)
    ids = await demo.publish_all(
        [demo.command("ai.send.v1", {"model": "steady", "prompt": str(number)}) for number in range(100)]
    )

    await until("some are answered", lambda: any(demo.replies.values()))
    assert await stage.stopped(first) == 0
    assert not await stage.records.finished(demo.name, ids)
    stage.worker("ai", "second", **settings)
    await until("all are answered", lambda: demo.answered(ids))

    commands = await stage.records.commands(demo.name)
    assert {(one["state"], one["attempt"], one["crashes"]) for one in commands.values()} == {("succeeded", 1, 0)}
    assert provider.calls() == dict.fromkeys(ids, 1)
    assert all(len(demo.replies[id_]) == 1 for id_ in ids)


async def test_a_relay_worker_asked_to_stop_under_load_loses_nothing(stage: Stage, demo: Outsider) -> None:
    first = stage.worker("relay", "first", ISH_BATCH_SIZE="20")
    ids = await demo.publish_all([demo.command("relay.v1", RELAY_BODY) for _ in range(2000)])

    await until("some are answered", lambda: any(demo.replies.values()))
    assert await stage.stopped(first) == 0
    stage.worker("relay", "second")
    await until("all are answered", lambda: demo.answered(ids))

    commands = await stage.records.commands(demo.name)
    assert {(one["state"], one["attempt"]) for one in commands.values()} == {("succeeded", 1)}
    assert len(commands) == len(ids)
    assert all(len(demo.replies[id_]) == 1 for id_ in ids)


@pytest.fixture
async def deleted_relay_queue(stage: Stage) -> AsyncIterator[None]:
    yield
    await apply_topology(stage.services.amqp_url("admin"))


async def test_a_worker_without_its_queue_ends_so_that_its_supervisor_notices(
    stage: Stage, deleted_relay_queue: None
) -> None:
    del deleted_relay_queue
    worker = stage.worker("relay", ISH_WATCHDOG_SECONDS="1")
    await stage.line_of(worker, "consumer_started")

    await stage.queues.delete(RELAY)

    assert await stage.ended(worker) == 3
    assert await stage.line_of(worker, "consumer_gone")
