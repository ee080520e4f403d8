"""Running commands are cancelled, whichever worker has them and whatever becomes of it; an upload is installed on the way."""

import hashlib
import os
import signal
from typing import Any

import httpx

from ops.simulators.phone.apk import write_apk
from tests.acceptance.phone_fleet import all_consumed, phone_fleet
from tests.acceptance.records import until
from tests.acceptance.stage import Stage

MIB = 1024 * 1024
LONG = {"action": "wait_for", "selector": {"text": "nowhere"}, "timeout_seconds": 250}


async def started(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> str:
    """The address of a command that runs."""
    address = str((await client.post(path, json=body)).json()["links"]["self"])

    async def runs() -> bool:
        return bool((await client.get(address)).json()["status"] == "running")

    await until("it runs", runs)
    return address


async def ended(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    command: dict[str, Any] = {}

    async def over() -> bool:
        nonlocal command
        command = (await client.get(address)).json()
        return command["result"] is not None

    await until("it has ended", over)
    return command


async def test_what_a_phone_does_is_cancelled_by_request_and_the_phone_goes_on(stage: Stage) -> None:
    async with phone_fleet(stage, 1) as phones:
        [serial] = phones.serials
        client = await stage.gateway()
        stage.worker("outbox")
        stage.worker("android")
        await until("the phone is consumed", lambda: all_consumed(stage, [serial]))
        address = await started(client, "/api/android/execute", {**LONG, "device": serial})

        asked = await client.delete(address)
        command = await ended(client, address)
        again = await client.delete(address)
        after = await client.post(
            "/api/android/execute", json={"action": "battery", "device": serial}, params={"wait": 30}, timeout=60
        )

        assert (asked.status_code, asked.json()["status"]) == (202, "running")
        assert asked.json()["cancel_requested_at"] is not None
        assert command["status"] == "cancelled"
        assert command["result"]["error"]["code"] == "cancelled"
        assert command["result"]["error"]["details"]["had_effect"] is False
        assert (again.status_code, again.json()["status"]) == (200, "cancelled")
        assert after.json()["status"] == "succeeded"
        rows = await stage.records.rows("select status from outbox where id = $1::text::uuid", command["id"])
        assert len(rows) <= 1


async def test_a_cancel_survives_its_worker_and_what_cannot_be_stopped_is_refused(stage: Stage) -> None:
    async with phone_fleet(stage, 1) as phones:
        [serial] = phones.serials
        client = await stage.gateway()
        stage.worker("outbox")
        worker = stage.worker("android")
        await until("the phone is consumed", lambda: all_consumed(stage, [serial]))
        address = await started(client, "/api/android/execute", {**LONG, "device": serial})
        worker.send(signal.SIGSTOP)  # so that it cannot hear of it

        asked = await client.delete(address)
        worker.kill()
        stage.worker("android", "second")
        command = await ended(client, address)

        assert asked.status_code == 202
        assert command["status"] == "cancelled"
        assert command["result"]["attempts"] == 2

        await phones.change(serial, slow_seconds={"input": 30})
        tap = await started(client, "/api/android/execute", {"action": "tap", "x": 1, "y": 1, "device": serial})
        refused = await client.delete(tap)
        assert (refused.status_code, refused.json()["command_status"]) == (409, "running")


async def test_a_call_of_a_provider_is_hung_up(stage: Stage) -> None:
    provider = await stage.provider(latency_seconds=250)
    client = await stage.gateway()
    stage.worker("outbox")
    stage.worker("ai", ISH_PROVIDERS_FILE=str(provider.providers_file))
    address = await started(client, "/api/send", {"prompt": "hello", "model": "scripted/steady"})
    await until("the provider is asked", lambda: bool(provider.calls()))

    answer = await client.delete(address, params={"wait": 30}, timeout=60)

    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


async def test_an_apk_is_uploaded_and_installed_by_another_process(stage: Stage) -> None:
    async with phone_fleet(stage, 1) as phones:
        [serial] = phones.serials
        client = await stage.gateway()
        stage.worker("outbox")
        stage.worker("android")
        apk = write_apk("org.example.large", padding=os.urandom(8 * MIB))

        stored = await client.post("/api/artifacts?file_name=large.apk", content=apk)
        installed = await client.post(
            "/api/android/execute",
            json={"action": "install", "artifact": stored.json()["id"], "device": serial},
            params={"wait": 60},
            timeout=90,
        )

        assert stored.json()["sha256"] == hashlib.sha256(apk).hexdigest()
        assert installed.json()["result"]["status"] == "succeeded", installed.text
        [pushed] = phones.effects(serial, actions=["push"])
        assert pushed["sha256"] == stored.json()["sha256"]
