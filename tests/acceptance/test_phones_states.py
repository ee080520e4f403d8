"""What happens to phones is seen by whoever asks the gateway, and mended without anybody's doing; on an old and a new adb."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.simulators.phone.adb_programs import AdbProgram, bundled, of_distribution
from ops.simulators.phone.lab import running_adb_server
from tests.acceptance.phone_fleet import PhoneFleet, phone_fleet
from tests.acceptance.records import until
from tests.acceptance.stage import Stage
from workers.android.adb.server import AdbServer

PROGRAMS: dict[str, Callable[[], AdbProgram]] = {
    "adb of today": bundled,
    "adb of the distribution": lambda: of_distribution(print),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """Two phones behind an adb server of their own, a worker, and the gateway."""

    fleet: PhoneFleet
    client: httpx.AsyncClient
    server: AdbServer
    program: AdbProgram
    life: AsyncExitStack
    """Ends the adb server."""

    async def phone(self, serial: str) -> dict[str, Any]:
        """What the gateway says of a phone; empty while it does not know it."""
        status = (await self.client.get("/api/android/status")).json()
        return next((one for one in status["devices"] if one["serial"] == serial), {})

    async def until_state(self, serial: str, state: str) -> dict[str, Any]:
        """Wait until the gateway says that a phone is in this state."""

        async def is_so() -> bool:
            return (await self.phone(serial)).get("state") == state

        await until(f"{serial} is {state}", is_so)
        return await self.phone(serial)

    async def run(self, serial: str, **action: Any) -> dict[str, Any]:
        """Run an action on a phone, and wait for its result."""
        body = {"device": serial, **(action or {"action": "battery"})}
        answer = await self.client.post("/api/android/execute", json=body, params={"wait": 60}, timeout=120)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result


@pytest.fixture(params=PROGRAMS)
async def scene(request: pytest.FixtureRequest, stage: Stage, tmp_path: Path) -> AsyncIterator[Scene]:
    program = PROGRAMS[request.param]()
    home = tmp_path / "adb"
    home.mkdir()
    async with AsyncExitStack() as life:
        server = await life.enter_async_context(
            running_adb_server(home, program=program.path, environment=program.environment)
        )
        async with phone_fleet(stage, 2, server=str(server)) as fleet:
            stage.worker("outbox")
            stage.worker("android", ISH_ADB_SERVERS=str(server))
            it = Scene(fleet, await stage.gateway(), server, program, life)
            for serial in fleet.serials:
                await it.until_state(serial, "device")
            yield it


async def test_a_ready_phone_is_shown_with_all_that_is_known_of_it(scene: Scene) -> None:
    serial = scene.fleet.serials[0]

    async def is_complete() -> bool:
        phone = await scene.phone(serial)
        return None not in (phone["lease"], phone["queue_depth"], phone["battery"], phone["screen"])

    await until("all of it is known", is_complete)
    phone = await scene.phone(serial)

    assert (phone["connected"], phone["hint"], phone["tags"]) == (True, None, [])
    assert (phone["model"], phone["android_version"], phone["battery"]) == ("ISH Simulated Phone", "14", 87)
    assert phone["screen"] == "720x1280 on"
    assert (phone["host"], phone["address"]) == (str(scene.server), scene.fleet.addresses[serial])
    assert phone["lease"]["worker"].startswith("android@")
    assert phone["queue_depth"] == 0


async def test_withdrawn_permission_is_shown_with_what_to_do_and_commands_wait_for_it(scene: Scene) -> None:
    locked, other = scene.fleet.serials
    await scene.fleet.change(locked, authorized=False)

    phone = await scene.until_state(locked, "unauthorized")
    waiting = await scene.client.post("/api/android/execute", json={"action": "battery", "device": locked})
    assert (await scene.run(other))["status"] == "succeeded"
    place = waiting.headers["location"]

    async def is_put_off() -> bool:
        return bool((await scene.client.get(place)).json()["status"] == "retrying")

    await until("the command waits", is_put_off)
    await scene.fleet.change(locked, authorized=True)
    await scene.until_state(locked, "device")
    done = (await scene.client.get(place, params={"wait": 60}, timeout=120)).json()

    assert "USB debugging prompt" in phone["hint"]
    assert (done["status"], done["result"]["attempts"]) == ("succeeded", 1)


async def test_a_phone_that_vanishes_is_offline_and_used_again_when_it_is_back(scene: Scene) -> None:
    serial = scene.fleet.serials[0]
    await scene.fleet.change(serial, present=False)
    phone = await scene.until_state(serial, "offline")

    await scene.fleet.change(serial, present=True)

    assert (await scene.run(serial))["status"] == "succeeded"
    assert phone["hint"]
    await scene.until_state(serial, "device")


async def test_a_black_hole_is_found_and_the_phone_used_again_when_it_answers(scene: Scene) -> None:
    hole, other = scene.fleet.serials
    await scene.fleet.change(hole, answer="black_hole")

    phone = await scene.until_state(hole, "unresponsive")
    assert (await scene.run(other))["status"] == "succeeded"
    await scene.fleet.change(hole, answer="normal")

    assert (await scene.run(hole))["status"] == "succeeded"
    assert "restart" in phone["hint"]


async def test_phones_come_back_after_their_adb_server_was_killed(scene: Scene, tmp_path: Path) -> None:
    serial = scene.fleet.serials[0]
    await scene.life.aclose()
    phone = await scene.until_state(serial, "offline")
    home = tmp_path / "adb-again"
    home.mkdir()

    await scene.life.enter_async_context(
        running_adb_server(
            home, port=scene.server.port, program=scene.program.path, environment=scene.program.environment
        )
    )

    assert (await scene.run(serial))["status"] == "succeeded"
    assert "start-server" in phone["hint"]
