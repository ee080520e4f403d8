import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ops.simulators.phone.effects import read_effects
from ops.simulators.phone.lab import connected_phone, running_adb_server
from workers.android.adb.server import AdbServer
from workers.android.monitor.watch import FORGOTTEN_AFTER, Watcher
from workers.task_cancellation import end

PATIENCE_SECONDS = 60
POLL_SECONDS = 0.2


@asynccontextmanager
async def watching(*servers: AdbServer, responsible: Callable[[str], bool] = lambda _: True) -> AsyncIterator[Watcher]:
    watcher = Watcher(servers, responsible=responsible, poll_seconds=POLL_SECONDS)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watcher.run())
        try:
            yield watcher
        finally:
            await end([task])


async def until(watcher: Watcher, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            watcher.changed.clear()
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await watcher.changed.wait()
            except TimeoutError:
                continue


async def until_states(watcher: Watcher, **states: str) -> None:
    await until(watcher, lambda: {phone.serial: phone.state for phone in watcher.phones()} == states)


async def test_a_ready_phone_is_shown_with_its_facts_and_never_under_another_name(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1"), watching(server) as watcher:
        await until(watcher, lambda: any(phone.screen for phone in watcher.phones()))
        [facts] = watcher.phones()

        assert facts.serial == "SIM1"
        assert facts.identified
        assert (facts.state, facts.hint) == ("device", None)
        assert (facts.model, facts.android_version) == ("ISH Simulated Phone", "14")
        assert (facts.battery_percent, facts.screen) == (87, "720x1280 on")
        assert facts.adb_server == str(server)
        assert facts.transport_serial.startswith("127.0.0.2:")
        assert watcher.looked.is_set()
        transport = watcher.transport_of("SIM1")
        assert transport is not None
        assert transport.serial == facts.transport_serial


async def test_withdrawn_permission_is_shown_with_what_to_do_and_given_back(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1") as device, watching(server) as watcher:
        await until_states(watcher, SIM1="device")

        device.control.change(authorized=False)
        await until_states(watcher, SIM1="unauthorized")
        assert "USB debugging prompt" in (watcher.phones()[0].hint or "")
        assert watcher.transport_of("SIM1") is None

        device.control.change(authorized=True)
        await until_states(watcher, SIM1="device")


async def test_a_phone_that_vanishes_is_offline_and_back_when_it_returns(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1") as device, watching(server) as watcher:
        await until_states(watcher, SIM1="device")

        device.control.change(present=False)
        await until_states(watcher, SIM1="offline")
        [facts] = watcher.phones()
        assert facts.hint
        assert facts.model == "ISH Simulated Phone"

        device.control.change(present=True)
        await until_states(watcher, SIM1="device")


async def test_a_forgotten_network_phone_is_connected_again(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1"), watching(server) as watcher:
        await until_states(watcher, SIM1="device")

        await server.disconnect(watcher.phones()[0].transport_serial, timeout_seconds=PATIENCE_SECONDS)

        await until_states(watcher, SIM1="offline")
        await until_states(watcher, SIM1="device")


async def test_a_phone_known_from_before_is_connected_by_a_watcher_that_never_saw_it(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1"):
        async with watching(server) as first:
            await until_states(first, SIM1="device")
            [facts] = first.phones()
        await server.disconnect(facts.transport_serial, timeout_seconds=PATIENCE_SECONDS)
        async with watching(server) as second:
            await until(second, second.looked.is_set)
            assert second.phones() == []

            second.learn([facts, replace(facts, serial="ELSEWHERE", adb_server="127.0.0.1:1")])

            assert [phone.state for phone in second.phones()] == ["offline"]
            await until_states(second, SIM1="device")


async def test_a_phone_that_cannot_say_who_it_is_is_taken_for_the_one_that_was_there(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1") as device:
        async with watching(server) as first:
            await until_states(first, SIM1="device")
            [facts] = first.phones()
        device.control.change(authorized=False)
        async with watching(server) as second:
            await until(second, lambda: bool(second.phones()))
            assert [phone.serial for phone in second.phones()] == [facts.transport_serial]

            second.learn([facts])

            await until_states(second, SIM1="unauthorized")
            device.control.change(authorized=True)
            await until_states(second, SIM1="device")


async def test_phones_come_back_after_their_adb_server_was_killed(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with AsyncExitStack() as first_life:
        first = await first_life.enter_async_context(running_adb_server(tmp_path_factory.mktemp("first")))
        async with connected_phone(first, "SIM1"), watching(first) as watcher:
            await until_states(watcher, SIM1="device")
            assert watcher.within_reach() == {"SIM1"}

            await first_life.aclose()
            await until_states(watcher, SIM1="offline")
            assert "start-server" in (watcher.phones()[0].hint or "")
            assert watcher.failure is not None
            assert watcher.within_reach() == set()

            async with running_adb_server(tmp_path_factory.mktemp("second"), port=first.port):
                await until_states(watcher, SIM1="device")
                assert watcher.failure is None


async def test_a_black_hole_is_unresponsive_and_does_not_slow_the_others(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1") as device, connected_phone(server, "SIM2"), watching(server) as watcher:
        await until_states(watcher, SIM1="device", SIM2="device")

        device.control.change(answer="black_hole")
        await until_states(watcher, SIM1="unresponsive", SIM2="device")
        assert "restart" in (watcher.phones()[0].hint or "")

        device.control.change(answer="normal")
        await until_states(watcher, SIM1="device", SIM2="device")


async def test_a_phone_in_doubt_is_not_trusted_until_it_gives_a_sign_of_life(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1"), watching(server) as watcher:
        await until(watcher, lambda: watcher.trusts("SIM1"))

        watcher.doubt("SIM1")

        assert not watcher.trusts("SIM1")
        await until(watcher, lambda: watcher.trusts("SIM1"))


async def test_who_is_not_responsible_for_a_phone_asks_its_name_and_nothing_else(
    server: AdbServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("log") / "effects.jsonl"
    async with connected_phone(server, "SIM1", effects=log) as device:
        async with watching(server, responsible=lambda _: False) as watcher:
            await until_states(watcher, SIM1="device")
            device.control.change(answer="black_hole")
            address = watcher.phones()[0].transport_serial
            async with connected_phone(server, "SIM2"):
                # a phone that comes and goes: many looks at the servers were made meanwhile
                await until(watcher, lambda: len(watcher.phones()) == 2)
            await until(watcher, lambda: watcher.phones()[-1].state == "offline")
            facts = watcher.facts_of("SIM1")
            device.control.change(answer="normal")

        assert facts is not None
        assert (facts.state, facts.transport_serial) == ("device", address)
        assert read_effects(log) == []


async def test_an_adb_server_that_is_down_hides_no_other(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1"), watching(AdbServer("127.0.0.1", 1), server) as watcher:
        await until_states(watcher, SIM1="device")
        assert watcher.failure is not None


async def test_a_phone_that_was_not_seen_for_a_week_is_none_any_more(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1"), watching(server) as first:
        await until_states(first, SIM1="device")
        [facts] = first.phones()
    async with watching(server) as watcher:
        await until(watcher, watcher.looked.is_set)
        long_ago = datetime.now(UTC) - FORGOTTEN_AFTER - timedelta(minutes=1)
        watcher.learn([replace(facts, serial="OLD", transport_serial="127.0.0.9:1", seen_at=long_ago)])

        await until(watcher, lambda: "OLD" not in {phone.serial for phone in watcher.phones()})
