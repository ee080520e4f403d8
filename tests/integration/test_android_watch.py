import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import cast

import pytest

from ops.phone.lab import connected_phone, running_adb_server
from workers.android.adb import AdbServer
from workers.android.watch import DeviceFacts, watch

PATIENCE_SECONDS = 60
POLL_SECONDS = 0.5


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AdbServer]:
    async with running_adb_server(tmp_path_factory.mktemp("adb")) as running:
        yield running


@asynccontextmanager
async def watching(*servers: AdbServer) -> AsyncIterator[AsyncGenerator[list[DeviceFacts]]]:
    watched = cast("AsyncGenerator[list[DeviceFacts]]", watch(servers, poll_seconds=POLL_SECONDS))
    async with aclosing(watched):
        yield watched


async def until(
    looks: AsyncGenerator[list[DeviceFacts]], holds: Callable[[Sequence[DeviceFacts]], bool]
) -> list[DeviceFacts]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for devices in looks:
            if holds(devices):
                return devices
    raise AssertionError("the watcher ended")


def are(**states: str) -> Callable[[Sequence[DeviceFacts]], bool]:
    return lambda devices: {device.serial: device.state for device in devices} == states


async def test_a_ready_phone_is_shown_with_its_facts_and_never_under_another_name(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1"), watching(server) as looks:
        [facts] = await until(looks, bool)

        assert facts.serial == "SIM1"
        assert (facts.state, facts.hint) == ("device", None)
        assert facts.model == "ISH Simulated Phone"
        assert facts.android_version == "14"
        assert facts.battery_percent == 87
        assert facts.adb_server == str(server)
        assert facts.transport_serial.startswith("127.0.0.2:")


async def test_withdrawn_permission_is_shown_with_what_to_do_and_given_back(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1") as device, watching(server) as looks:
        await until(looks, are(SIM1="device"))

        device.control.change(authorized=False)
        [facts] = await until(looks, are(SIM1="unauthorized"))
        assert "USB debugging prompt" in (facts.hint or "")

        device.control.change(authorized=True)
        await until(looks, are(SIM1="device"))


async def test_a_phone_that_vanishes_is_offline_and_back_when_it_returns(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1") as device, watching(server) as looks:
        await until(looks, are(SIM1="device"))

        device.control.change(present=False)
        [facts] = await until(looks, are(SIM1="offline"))
        assert facts.hint
        assert facts.model == "ISH Simulated Phone"

        device.control.change(present=True)
        await until(looks, are(SIM1="device"))


async def test_a_forgotten_network_phone_is_connected_again(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1"), watching(server) as looks:
        [facts] = await until(looks, are(SIM1="device"))

        await server.disconnect(facts.transport_serial, timeout_seconds=PATIENCE_SECONDS)

        await until(looks, are(SIM1="offline"))
        await until(looks, are(SIM1="device"))


async def test_phones_come_back_after_their_adb_server_was_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with AsyncExitStack() as first_life:
        first = await first_life.enter_async_context(running_adb_server(tmp_path_factory.mktemp("first")))
        async with connected_phone(first, "SIM1"), watching(first) as looks:
            await until(looks, are(SIM1="device"))

            await first_life.aclose()
            [facts] = await until(looks, are(SIM1="offline"))
            assert "start-server" in (facts.hint or "")

            async with running_adb_server(tmp_path_factory.mktemp("second"), port=first.port):
                await until(looks, are(SIM1="device"))


async def test_a_black_hole_is_unresponsive_and_does_not_slow_the_others(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1") as device, connected_phone(server, "SIM2"), watching(server) as looks:
        await until(looks, are(SIM1="device", SIM2="device"))

        device.control.change(answer="black_hole")
        devices = await until(looks, are(SIM1="unresponsive", SIM2="device"))
        assert "restart" in (devices[0].hint or "")

        device.control.change(answer="normal")
        await until(looks, are(SIM1="device", SIM2="device"))


async def test_an_adb_server_that_is_down_hides_no_other(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1"), watching(AdbServer("127.0.0.1", 1), server) as looks:
        await until(looks, are(SIM1="device"))
