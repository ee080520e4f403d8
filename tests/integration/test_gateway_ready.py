"""What `/ready` says while the broker has an alarm, confirms nothing or refuses, and while other services are away."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aio_pika
import httpx
import pytest

from ops.stack.session import Session
from tests.integration.gateway_process import (
    RELAY as MESSAGE,
)
from tests.integration.gateway_process import (
    GatewayProcess,
    eventually,
    frozen,
    wait_ready,
)


async def _ready(client: httpx.AsyncClient) -> tuple[int, dict[str, Any]]:
    answer = await client.get("/ready")
    return answer.status_code, answer.json()


def _control(services: Session, *argv: str) -> None:
    """Run `rabbitmqctl` on the test's own broker."""
    spec = services.broker.child.spec
    environment = {
        **spec.environment,
        "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    program = Path(spec.argv[0]).with_name("rabbitmqctl")
    subprocess.run([program, *argv], env=environment, check=True, capture_output=True, timeout=120)


@contextmanager
def _alarm(services: Session, kind: str) -> Iterator[None]:
    setting, low, usual = {
        "memory": (("set_vm_memory_high_watermark", "absolute"), "1", "1GB"),
        "disk": (("set_disk_free_limit",), "900000GB", "50MB"),
    }[kind]
    _control(services, *setting, low)
    try:
        yield
    finally:
        _control(services, *setting, usual)


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_alarm_is_blocked_before_and_after_a_publish_met_it(
    services: Session, gateway: GatewayProcess, client: httpx.AsyncClient, kind: str
) -> None:
    with _alarm(services, kind):

        async def blocked() -> bool:
            return bool((await _ready(client))[1]["broker"] == "blocked")

        await eventually(blocked)
        status, told = await _ready(client)
        answers = [await client.post("/api/relay", json=MESSAGE) for _ in range(2)]

    assert (status, told["status"]) == (503, "unready")
    assert {answer.status_code for answer in answers} == {503}
    assert "alarm" in answers[0].json()["detail"]
    await asyncio.to_thread(wait_ready, gateway)
    assert (await client.post("/api/relay", json=MESSAGE)).status_code == 202


async def test_frozen_broker_is_silent_or_away(
    services: Session, gateway: GatewayProcess, client: httpx.AsyncClient
) -> None:
    with frozen(services.broker):

        async def unready() -> bool:
            status, told = await _ready(client)
            return status == 503 and told["status"] == "unready" and told["broker"] in {"silent", "away"}

        await eventually(unready)
    await asyncio.to_thread(wait_ready, gateway)


@asynccontextmanager
async def _refusing(services: Session, queue: str) -> AsyncIterator[None]:
    """Bind a queue that is always full to the same key."""
    connection = await aio_pika.connect(services.amqp_url("admin"))
    async with connection:
        channel = await connection.channel()
        full = await channel.declare_queue(
            "test.full", durable=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
        )
        await full.bind("ish.commands", routing_key=queue)
        try:
            yield
        finally:
            await full.delete(if_unused=False, if_empty=False)


async def test_full_queue_is_named_until_it_takes_commands_again(
    services: Session, gateway: GatewayProcess, client: httpx.AsyncClient
) -> None:
    async with _refusing(services, "relay"):
        refused = await client.post("/api/relay", json=MESSAGE)
        told = (await eventually(lambda: _named(client)))[1]

    assert (refused.status_code, told["status"], told["broker"], told["refusing"]) == (503, "degraded", "ok", ["relay"])
    assert (await client.post("/api/relay", json=MESSAGE)).status_code == 202
    await asyncio.to_thread(wait_ready, gateway)


async def _named(client: httpx.AsyncClient) -> Any:
    found = await _ready(client)
    return found if found[1]["refusing"] else None


async def test_every_kind_refused_is_unready(services: Session, client: httpx.AsyncClient) -> None:
    async with _refusing(services, "#"):
        await client.post("/api/relay", json=MESSAGE)
        await client.post("/api/send", json={"prompt": "hello"})
        await client.post("/api/android/execute", json={"action": "wake"})

        async def refusing() -> bool:
            status, told = await _ready(client)
            return status == 503 and told["broker"] == "refusing"

        await eventually(refusing)
        answer = await client.post("/api/relay", json=MESSAGE)
    assert answer.status_code == 503
