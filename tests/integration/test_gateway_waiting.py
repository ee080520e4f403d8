"""What a command waits for, as it is read and as it is followed: taken from what workers write of phones and of themselves."""

import json
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from contracts.database import SERVER_SETTINGS
from gateway.services.waiting_for import WAITING
from ops.stack.session import Session
from tests.integration.gateway_process import database, post

PATH = "/api/android/execute"


async def live_worker(services: Session, pool: str) -> UUID:
    incarnation = uuid4()
    async with database(services, "ish_worker") as connection:
        await connection.execute(
            "insert into workers (incarnation, pool, host, pid, version, metrics_port, heartbeat_at) "
            "values ($1, $2, 'h', 1, '1', 0, now() + interval '1 hour')",
            incarnation,
            pool,
        )
    return incarnation


async def stop_worker(services: Session, incarnation: UUID) -> None:
    async with database(services, "ish_worker") as connection:
        await connection.execute("update workers set stopped_at = now() where incarnation = $1", incarnation)


async def phone(services: Session, serial: str, state: str, hint: str | None = None) -> None:
    async with database(services, "ish_worker") as connection:
        await connection.execute(
            "insert into devices (serial, host, transport, state, hint, seen_at, queue_depth) "
            "values ($1, 'h:1', $1, $2, $3, now(), 1) "
            "on conflict (serial) do update set state = excluded.state, hint = excluded.hint, updated_at = now()",
            serial,
            state,
            hint,
        )


async def read(client: httpx.AsyncClient, command_id: str) -> dict[str, str] | None:
    answer: dict[str, str] | None = (await client.get(f"/api/commands/{command_id}")).json()["waiting_for"]
    return answer


@pytest.mark.usefixtures("no_workers")
async def test_a_command_without_a_worker_waits_for_one(client: httpx.AsyncClient) -> None:
    command = await post(client, "/api/send", json={"prompt": "hello"})

    waiting = await read(client, command["id"])

    assert waiting == {"reason": "worker", "message": "no ai worker is running"}


async def test_a_command_waits_for_its_phone_and_is_told_so_as_that_changes(
    client: httpx.AsyncClient, services: Session
) -> None:
    worker, serial = await live_worker(services, "android"), f"W-{uuid4().hex[:8]}"
    await phone(services, serial, "unauthorized", "accept the prompt")
    command = await post(client, PATH, json={"action": "battery", "device": serial})

    first = await read(client, command["id"])
    events = []
    async with client.stream("GET", command["links"]["events"]) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: ")).get("waiting_for", {}).get("reason"))
                if events == ["device_unauthorized"]:
                    await phone(services, serial, "booting")
                if len(events) == 2:
                    break
    await phone(services, serial, "device")
    last = await read(client, command["id"])
    await stop_worker(services, worker)

    assert first is not None
    assert (first["reason"], first["device"]) == ("device_unauthorized", serial)
    assert "accept the prompt" in first["message"]
    assert events == ["device_unauthorized", "device_booting"]
    assert last is not None
    assert last["reason"] == "turn"


async def test_what_has_ended_waits_for_nothing(client: httpx.AsyncClient) -> None:
    command = await post(client)
    await client.delete(command["links"]["self"])

    assert await read(client, command["id"]) is None


async def test_commands_are_found_by_their_keys(services: Session) -> None:
    async with database(services, "ish_gateway") as connection:
        for setting, value in SERVER_SETTINGS.items():
            await connection.execute("select set_config($1, $2, false)", setting, value)
        rows = await connection.fetch(f"explain {WAITING}", ["gateway"] * 50, [UUID(int=1)] * 50, timedelta(seconds=6))

    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan on commands" not in plan, plan
    assert "command_keys_pkey" in plan, plan
