"""Each call of PostgreSQL, Redis, RabbitMQ and adb fails once: every command ends once, is answered, and no process ends.

The calls are found as the processes run (see `faulty_process`), so that none has to be listed here.
"""

import asyncio
import signal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ops.stack.child import Child
from tests.acceptance.outsider import Outsider
from tests.acceptance.records import until
from tests.acceptance.stage import Stage, free_port

RELAY = {"sender": "user", "message": "hello", "timestamp": "2025-01-01T00:00:00Z", "conversation_id": "faults"}
POOLS = ("outbox", "relay", "ai", "android")
ROUNDS = 6
KINDS_OF_CALLS = {
    "outbox": ("Pool._acquire", "Connection.fetch", "Transaction.__aexit__", "Channel.queue_declare", ".connect"),
    "relay": (
        "Connection.fetch",
        "Transaction.__aexit__",
        "ConsumeChannel.send_acks",
        "Channel.basic_consume",
        ".send",
    ),
    "ai": (
        "Pipeline.execute",
        "PubSub.execute_command",
        "Connection.fetch",
        "Channel.basic_qos",
        "Redis.execute_command",
    ),
    "android": ("asyncio.open_connection", "StreamReader.readexactly", "Channel.open", "Connection.execute"),
    "gateway": ("Connection.fetch", "Redis.execute_command", "Pipeline.execute", ".connect", ".send"),
}


class Play:
    """Every process of the product, each with its faults, and what was asked of it."""

    def __init__(self, stage: Stage, demo: Outsider, *, when: str, visit: int) -> None:
        self.stage, self.demo = stage, demo
        self._when, self._visit = when, visit
        self.processes: dict[str, Child] = {}
        self.asked: dict[str, str] = {}
        """Kind by id, of what was published over AMQP."""
        self.posted: list[str] = []

    def start(self, pool: str, **settings: str) -> None:
        role = {"outbox": "outbox", "gateway": "gateway"}.get(pool, "worker")
        what = ("gateway",) if pool == "gateway" else ("workers", pool)
        port = free_port()
        self.stage.metrics_ports[pool] = port
        self.processes[pool] = self.stage.start(
            pool,
            "tests.acceptance.faulty_process",
            self._when,
            str(self._visit),
            str(self.log_of(pool)),
            *what,
            role=role,
            ISH_METRICS_PORT=str(port),
            **settings,
        )

    def log_of(self, pool: str) -> Path:
        return self.stage.folder / f"faults-{pool}.txt"

    def failed(self, pool: str) -> list[str]:
        path = self.log_of(pool)
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    async def publish(self, number: int) -> None:
        """Ask for something of each sort over AMQP, at once."""
        bodies: list[tuple[str, dict[str, Any]]] = [
            *(("relay.v1", RELAY) for _ in range(6)),
            *(("ai.send.v1", {"prompt": f"hello {number}", "conversation_id": "faults"}) for _ in range(2)),
            ("ai.send.v1", {"prompt": "the same", "cache": True, "temperature": 0}),
            ("android.execute.v1", {"action": "getprop", "name": "ro.product.model"}),
            ("android.execute.v1", {"action": "screenshot"}),
            ("android.execute.v1", {"action": "tap", "x": 100, "y": 100}),
        ]
        ids = await self.demo.publish_all([self.demo.command(type_, body) for type_, body in bodies])
        self.asked |= {id_: type_ for id_, (type_, _) in zip(ids, bodies, strict=True)}

    async def post(self, client: httpx.AsyncClient) -> None:
        """Ask over HTTP, follow what is asked and read it; a request that meets a fault of its own is made again."""
        relay = await answered(client, "POST", "/api/relay?wait=1", RELAY)
        question = await answered(client, "POST", "/api/send", {"prompt": "tell me", "stream": True})
        self.posted += [relay.json()["id"], question.json()["id"]]
        await answered(client, "GET", f"/api/commands/{question.json()['id']}/events")
        for id_ in self.posted[-2:]:
            await answered(client, "GET", f"/api/commands/{id_}")

    def assert_none_ended(self) -> None:
        for name, process in self.processes.items():
            assert process.running, process.last_words(f"{name} ended")

    def tell_tasks(self) -> None:
        """Let each process say in its log what it waits for, for whoever reads why this failed."""
        for process in self.processes.values():
            process.send(signal.SIGUSR2)

    async def all_ended(self) -> bool:
        self.assert_none_ended()
        return (
            await self.stage.records.finished(self.demo.name, list(self.asked))
            and self.demo.answered(list(self.asked))
            and await self.stage.records.finished("gateway", self.posted)
        )


async def answered(client: httpx.AsyncClient, method: str, path: str, body: object = None) -> httpx.Response:
    """The good answer to a request, asked for until it comes."""
    headers = {"Idempotency-Key": str(uuid4())} if method == "POST" else {}
    found: list[httpx.Response] = []

    async def good() -> bool:
        try:
            found.append(await client.request(method, path, json=body, headers=headers))
        except httpx.TransportError:
            return False
        return found[-1].is_success

    try:
        await until(f"{method} {path} is answered", good)
    except AssertionError as error:
        error.add_note(f"last answer: {found[-1].status_code} {found[-1].text}" if found else "no answer at all")
        raise
    return found[-1]


async def play(stage: Stage, demo: Outsider, *, when: str, visit: int = 1, rounds: int = ROUNDS) -> None:
    it = Play(stage, demo, when=when, visit=visit)
    try:
        await _play(it, stage, demo, visit=visit, rounds=rounds)
    except AssertionError:
        it.tell_tasks()
        raise


async def _play(it: Play, stage: Stage, demo: Outsider, *, visit: int, rounds: int) -> None:
    provider = await stage.provider()
    client = await stage.gateway()
    async with stage.phone():
        for pool in POOLS:
            it.start(pool, ISH_PROVIDERS_FILE=str(provider.providers_file) if pool == "ai" else "")
        port = free_port()
        it.start("gateway", ISH_GATEWAY_PORT=str(port))
        faulty = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=client.headers, timeout=30, trust_env=False
        )
        async with faulty:
            for number in range(rounds):
                await it.publish(number)
                await it.post(faulty)
                await asyncio.sleep(0.5)
                it.assert_none_ended()
            await until("every command has ended and is answered", it.all_ended, seconds=120)
            for pool, calls in KINDS_OF_CALLS.items() if visit == 1 else ():
                sites = it.failed(pool)
                for call in calls:
                    assert any(call in site for site in sites), f"{call} of {pool} never failed: {sites}"

    commands = await stage.records.commands(demo.name)
    ended = {(it.asked[id_], row["state"], row["error_code"]) for id_, row in commands.items() if id_ in it.asked}
    assert {one for one in ended if one[0] != "android.execute.v1"} == {
        ("relay.v1", "succeeded", None),
        ("ai.send.v1", "succeeded", None),
    }
    # a tap whose adb call failed midway must not be repeated
    assert {state for type_, state, _ in ended if type_ == "android.execute.v1"} <= {"succeeded", "indeterminate"}
    for id_ in it.asked:
        assert demo.reply(id_)["status"] == commands[id_]["state"]


async def test_each_call_fails_before_it_is_made(stage: Stage, demo: Outsider) -> None:
    await play(stage, demo, when="before")


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("when", "visit"), [("after", 1), ("before", 3), ("after", 3)])
async def test_each_call_fails_and_its_answer_is_lost(stage: Stage, demo: Outsider, when: str, visit: int) -> None:
    await play(stage, demo, when=when, visit=visit, rounds=20)
