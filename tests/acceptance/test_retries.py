"""What is tried again waits in the broker: in nobody's hands, in no other pool's way, and not lost with its wait queue."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aio_pika
import pytest

from contracts.topology import AI, ANDROID, RETRY, RETRY_LEVELS, retry_queue
from tests.acceptance.broken_queues import deleted, full
from tests.acceptance.outsider import Outsider
from tests.acceptance.records import until
from tests.acceptance.stage import Provider, Stage, free_port

ANDROID_WAITS = [retry_queue(ANDROID, level) for level in RETRY_LEVELS]
AI_WAIT = retry_queue(AI, "5s")
SHORTEST_WAIT = retry_queue(ANDROID, "5s")
PATIENT = "come back later"


async def test_a_command_waits_as_long_as_its_provider_asked_and_the_only_slot_serves_others(stage: Stage) -> None:
    await told_to_come_back(stage, retry_after_seconds=6)


@pytest.mark.full
@pytest.mark.parametrize("retry_after_seconds", [5.4, 20])
async def test_a_wait_is_never_cut_short_whatever_wait_queues_it_takes(
    stage: Stage, retry_after_seconds: float
) -> None:
    await told_to_come_back(stage, retry_after_seconds=retry_after_seconds)


async def told_to_come_back(stage: Stage, *, retry_after_seconds: float) -> None:
    client = await stage.gateway()
    provider = await stage.provider()
    await provider.script(match={"contains": PATIENT}, steps=[{"status": 429, "retry_after": retry_after_seconds}])
    settings = {"ISH_PROVIDERS_FILE": str(provider.providers_file), "ISH_AI_PREFETCH": "1"}
    first = stage.worker("ai", "first", **settings)

    async def ask(prompt: str) -> str:
        answer = await client.post("/api/send", json={"model": "limited", "prompt": prompt})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def view(id_: str) -> dict[str, Any]:
        document: dict[str, Any] = (await client.get(f"/api/commands/{id_}")).json()
        return document

    patient = await ask(PATIENT)
    others = [await ask(f"question {number}") for number in range(10)]

    await until("the others finish", lambda: stage.records.finished("gateway", others))
    waiting = await view(patient)
    first.send(signal.SIGKILL)
    await stage.ended(first)
    await until("the broker has closed its consumer", lambda: no_consumer(stage, AI))
    # what a killed worker had not acked would be back in its queue
    assert await stage.queues.ready([AI, AI_WAIT]) == {AI: 0, AI_WAIT: 1}
    stage.worker("ai", "second", **settings)
    await until("it finishes", lambda: stage.records.finished("gateway", [patient]))
    done = await view(patient)

    assert waiting["status"] == "retrying"
    assert waiting["retry_at"] is not None
    assert [one["error"]["code"] for one in waiting["attempts"]] == ["provider_rate_limited"]
    assert done["status"] == "succeeded"
    assert done["attempts"][0] == waiting["attempts"][0]
    assert [(one["attempt"], one["error"]) for one in done["attempts"][1:]] == [(2, None)]
    assert done["result"]["attempts"] == 2
    assert (await stage.records.commands("gateway"))[patient]["crashes"] == 0
    asked = times_asked(provider)
    early, late = asked[patient]
    assert late - early >= retry_after_seconds
    assert all(early < at < late for id_ in others for at in asked[id_])
    assert {len(asked[id_]) for id_ in others} == {1}


async def test_deleted_wait_queues_of_one_pool_leave_the_other_pools_retries_alone(
    stage: Stage, demo: Outsider
) -> None:
    async with stage.phone() as effects, cut_off_adb(stage) as adb:
        stage.worker("android", ISH_ADB_SERVERS=adb.address)
        swallowed = await demo.publish_all([tap(demo, number) for number in range(5)])
        await until("they wait in the broker", lambda: waiting_are(stage, 5))
        async with deleted(stage.services, ANDROID_WAITS):
            unroutable = await demo.publish_all([tap(demo, number) for number in range(5, 10)])

            await questions_are_retried(stage, demo)
            await left_to_the_outbox(stage, 5)
            states = await stage.records.commands(demo.name)
            assert {states[id_]["state"] for id_ in swallowed + unroutable} == {"retrying"}
            await adb.open()
            outbox = stage.worker("outbox")
            await all_tapped_once(stage, demo, swallowed + unroutable)

            await stage.line_of(outbox, "queue_redeclared")
        assert effects.read_text(encoding="utf-8").count('"action": "tap"') == 10


async def test_a_full_wait_queue_of_one_pool_leaves_the_other_pools_retries_alone(stage: Stage, demo: Outsider) -> None:
    async with stage.phone() as effects, cut_off_adb(stage) as adb, full(stage.services, SHORTEST_WAIT, exchange=RETRY):
        outbox = stage.worker("outbox")
        stage.worker("android", ISH_ADB_SERVERS=adb.address)
        taps = await demo.publish_all([tap(demo, number) for number in range(5)])

        await questions_are_retried(stage, demo)
        await left_to_the_outbox(stage, 5)
        states = await stage.records.commands(demo.name)
        assert {states[id_]["state"] for id_ in taps} == {"retrying"}
        await adb.open()
        await all_tapped_once(stage, demo, taps)

        await stage.line_of(outbox, "commands_republished")
        assert effects.read_text(encoding="utf-8").count('"action": "tap"') == 5


def tap(demo: Outsider, number: int) -> aio_pika.Message:
    return demo.command("android.execute.v1", {"action": "tap", "x": number, "y": 7})


async def questions_are_retried(stage: Stage, demo: Outsider) -> None:
    """Five questions are told to come back, wait in the broker and succeed."""
    provider = await stage.provider()
    steps = [{"status": 429, "retry_after": 3}]
    await provider.script(match={"model": "limited"}, steps=steps, per_command=True)
    stage.worker("ai", ISH_PROVIDERS_FILE=str(provider.providers_file))
    ids = await demo.publish_all(
        [demo.command("ai.send.v1", {"model": "limited", "prompt": str(number)}) for number in range(5)]
    )
    await until("the questions are answered", lambda: demo.answered(ids))
    assert {(demo.reply(id_)["status"], demo.reply(id_)["attempts"]) for id_ in ids} == {("succeeded", 2)}


async def left_to_the_outbox(stage: Stage, count: int) -> None:
    [log] = stage.folder.glob("android-*.log")
    await until(
        "the worker gives up the waits", lambda: log.read_text(encoding="utf-8").count("wait_left_to_outbox") >= count
    )


async def all_tapped_once(stage: Stage, demo: Outsider, ids: list[str]) -> None:
    await until("they are answered", lambda: demo.answered(ids), seconds=120)
    for id_ in ids:
        assert demo.reply(id_)["status"] == "succeeded"
        outcomes = [(one["outcome"], one["error_code"]) for one in await stage.records.attempts(demo.name, id_)]
        assert outcomes[-1] == ("succeeded", None)
        # waiting for the adb server spends no attempt
        assert {code for _, code in outcomes[:-1]} <= {"adb_server_down"}
    assert await stage.records.dead_letters(demo.name) == []


def times_asked(provider: Provider) -> dict[str, list[float]]:
    """When each command asked, by the provider's own clock."""
    asked: dict[str, list[float]] = {}
    for line in map(json.loads, provider.ledger.read_bytes().splitlines()):
        if line["event"] == "invoke":
            asked.setdefault(line["command_id"], []).append(line["at"])
    return asked


async def no_consumer(stage: Stage, name: str) -> bool:
    async with await aio_pika.connect(stage.services.amqp_url("admin")) as connection:
        queue = await (await connection.channel()).declare_queue(name, passive=True)
        return queue.declaration_result.consumer_count == 0


async def waiting_are(stage: Stage, count: int) -> bool:
    return (await stage.queues.ready([SHORTEST_WAIT]))[SHORTEST_WAIT] == count


@dataclass(slots=True)
class WayToAdb:
    """A port that leads to the adb server once it is opened."""

    server: str
    port: int = field(default_factory=free_port)
    _listener: asyncio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def open(self) -> None:
        self._listener = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.server.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, far_writer))
            group.create_task(_copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def cut_off_adb(stage: Stage) -> AsyncIterator[WayToAdb]:
    way = WayToAdb(stage.services.adb_server)
    try:
        yield way
    finally:
        await way.close()
