"""Who is who behind a real adb server: twins, phones that start, old ones, and ones whose commands hang."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from contracts.errors import CommandError, Deferred, ErrorCode, Indeterminate, Permanent
from ops.simulators.phone.device import Device
from ops.simulators.phone.lab import PHONE_HOST, connected_phone, connected_phones, until, until_state
from tests.integration.one_phone import BOTH_ADBS, one_phone
from workers.android.adb.server import AdbFailure, AdbServer, BoundServer
from workers.android.monitor.watch import Watcher
from workers.device_pool.leased_phone import Hold
from workers.task_cancellation import end

pytestmark = BOTH_ADBS
PATIENCE_SECONDS = 60


@dataclass
class Registered:
    incarnation: UUID
    sure_seconds: float = 60.0


@asynccontextmanager
async def watching(*servers: AdbServer) -> AsyncIterator[Watcher]:
    watcher = Watcher(servers, poll_seconds=0.1)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watcher.run())
        try:
            yield watcher
        finally:
            await end([task])


async def until_states(watcher: Watcher, states: dict[str, str]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while {facts.serial: facts.state for facts in watcher.phones()} != states:
            watcher.changed.clear()
            await watcher.changed.wait()


def hold_of(watcher: Watcher, serial: str, token: int = 17) -> Hold:
    registered = Registered(uuid4())
    return Hold(serial, token, registered.incarnation, registered, watcher, asyncio.Lock())


async def tap(hold: Hold, x: int) -> None:
    async with hold.opened() as (transport, _):
        await transport.server.shell(transport.serial, f"input tap {x} 1", timeout_seconds=PATIENCE_SECONDS)


def taps(device: Device) -> list[int]:
    return [effect["x"] for effect in device.effects.latest if effect["action"] == "tap"]


async def test_twins_are_called_by_their_addresses_and_neither_stands_in_for_the_other(server: AdbServer) -> None:
    async with connected_phones([server], ["SAME", "SAME"]) as [first, second], watching(server) as watcher:
        await until(lambda: [one.state for one in watcher.phones()] == ["device", "device"])
        assert any("SAME" in (one.hint or "") for one in watcher.phones())
        hold = hold_of(watcher, watcher.phones()[0].serial)
        await tap(hold, 1)
        mine, other = (first, second) if taps(first.device) else (second, first)

        mine.device.control.change(present=False)
        await until_states(
            watcher, {one.serial: "offline" if one.serial == hold.serial else "device" for one in watcher.phones()}
        )
        with pytest.raises(Deferred):
            await tap(hold, 2)

        assert taps(other.device) == []


async def test_a_twin_that_comes_later_never_gets_the_commands_of_the_one_that_left(server: AdbServer) -> None:
    async with watching(server) as watcher, connected_phone(server, "SAME") as first:
        await until_states(watcher, {"SAME": "device"})
        hold = hold_of(watcher, "SAME")
        await tap(hold, 1)

        first.control.change(present=False)
        await until_states(watcher, {"SAME": "offline"})
        async with connected_phones([server], ["SAME"]) as [second]:
            await until_states(watcher, {"SAME": "offline", second.address: "device"})
            with pytest.raises(Deferred):
                await tap(hold, 2)

            assert taps(second.device) == []
            first.control.change(present=True)
            await until_states(watcher, {"SAME": "device", second.address: "device"})
            await tap(hold, 3)

        assert taps(first) == [1, 3]


async def test_another_phone_at_the_same_address_is_not_the_one_that_is_held(server: AdbServer) -> None:
    async with watching(server) as watcher:
        async with connected_phones([server], ["SAME"]) as [first]:
            await until_states(watcher, {"SAME": "device"})
            hold = hold_of(watcher, "SAME")
            await tap(hold, 1)
            port = int(first.address.rpartition(":")[2])
        await until_states(watcher, {"SAME": "offline"})
        async with connected_phone(server, "SAME", port=port) as second:
            await until_states(watcher, {"SAME": "device"})
            with pytest.raises(CommandError) as refused:
                await tap(hold, 2)

            assert refused.value.code is ErrorCode.DEVICE_BUSY
            assert hold.estranged
            assert taps(second) == []


async def test_a_phone_over_two_addresses_is_one_phone(server: AdbServer) -> None:
    async with connected_phones([server], ["ONE"]) as [phone], watching(server) as watcher:
        await until_states(watcher, {"ONE": "device"})
        port = int(phone.address.rpartition(":")[2])

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection(PHONE_HOST, port)

            async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while content := await source.read(65536):
                    sink.write(content)
                    await sink.drain()

            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(copy(reader, inner_writer))
                    group.create_task(copy(inner_reader, writer))
            except* ConnectionError:
                pass
            finally:
                inner_writer.transport.abort()
                writer.transport.abort()

        listener = await asyncio.start_server(relay, "127.0.0.77", port)
        try:
            await server.connect(f"127.0.0.77:{port}", timeout_seconds=PATIENCE_SECONDS)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await until_state(server, f"127.0.0.77:{port}", "device")
            await until(lambda: {one.state for one in watcher.phones()} == {"device"})
            assert [one.serial for one in watcher.phones()] == ["ONE"]
        finally:
            await server.disconnect(f"127.0.0.77:{port}", timeout_seconds=PATIENCE_SECONDS)
            listener.close()


async def test_a_command_is_bound_to_the_connection_that_it_began_on(server: AdbServer) -> None:
    async with connected_phones([server], ["SIM1"]) as [phone]:
        [listed] = await server.phones(timeout_seconds=PATIENCE_SECONDS)
        bound = BoundServer(server.host, server.port, listed.transport_id)
        assert "shell_v2" in await bound.features(phone.address, timeout_seconds=PATIENCE_SECONDS)

        await server.disconnect(phone.address, timeout_seconds=PATIENCE_SECONDS)
        await server.connect(phone.address, timeout_seconds=PATIENCE_SECONDS)
        with pytest.raises(AdbFailure) as failure:
            await bound.shell(phone.address, "input tap 1 1", timeout_seconds=PATIENCE_SECONDS)

        assert not failure.value.begun
        assert taps(phone.device) == []


async def test_a_starting_phone_is_booting_and_takes_commands_once_it_has_started(server: AdbServer) -> None:
    async with connected_phone(server, "SIM1") as device:
        device.control.change(boot="booting")
        async with watching(server) as watcher:
            await until_states(watcher, {"SIM1": "booting"})
            assert "starting" in (watcher.phones()[0].hint or "")
            hold = hold_of(watcher, "SIM1")
            with pytest.raises(Deferred) as waits:
                await tap(hold, 1)
            assert waits.value.details["state"] == "booting"

            device.control.change(boot="completed")
            await until_states(watcher, {"SIM1": "device"})
            await tap(hold, 2)
            assert taps(device) == [2]

            device.control.change(boot="booting")
            await until_states(watcher, {"SIM1": "booting"})


@pytest.mark.parametrize("fields", [{"action": "battery"}, {"action": "tap", "x": 1, "y": 1}, {"action": "screenshot"}])
async def test_what_a_starting_phone_prints_is_no_answer(
    server: AdbServer, tmp_path: Path, fields: dict[str, object]
) -> None:
    async with one_phone(server, tmp_path) as phone:
        phone.device.control.change(boot="booting")
        with pytest.raises(Deferred) as waits:
            await phone.run(**fields)

        assert waits.value.details["state"] == "booting"
        phone.device.control.change(boot="completed")
        await phone.run(**fields)


@pytest.mark.parametrize(
    ("fields", "ends"), [({"action": "tap", "x": 1, "y": 1}, Indeterminate), ({"action": "battery"}, CommandError)]
)
async def test_a_phone_that_restarts_in_the_middle_is_told_honestly(
    server: AdbServer, tmp_path: Path, fields: dict[str, object], ends: type[CommandError]
) -> None:
    async with one_phone(server, tmp_path) as phone:
        phone.device.control.change(answer="vanish", boot="booting")
        with pytest.raises(ends) as ended:
            await phone.run(**fields)

        assert isinstance(ended.value, Indeterminate) == (ends is Indeterminate)


async def test_a_phone_without_shell_v2_is_unsupported_and_left_alone(server: AdbServer) -> None:
    async with connected_phone(server, "OLD1") as device:
        [listed] = await server.phones(timeout_seconds=PATIENCE_SECONDS)
        device.control.change(shell_v2=False, present=False)
        await until_state(server, listed.serial, "offline")
        device.control.change(present=True)
        await until_state(server, listed.serial, "device")
        async with watching(server) as watcher:
            await until_states(watcher, {"OLD1": "unsupported"})
            [facts] = watcher.phones()
            connection = await server.phones(timeout_seconds=PATIENCE_SECONDS)

            assert "Android 7" in (facts.hint or "")
            assert facts.model == "ISH Simulated Phone"
            with pytest.raises(Permanent) as refused:
                await tap(hold_of(watcher, "OLD1"), 1)
            assert refused.value.code is ErrorCode.DEVICE_UNSUPPORTED
            assert await server.phones(timeout_seconds=PATIENCE_SECONDS) == connection


async def test_a_connection_that_others_can_use_is_not_cut_although_commands_hang(server: AdbServer) -> None:
    async with connected_phones([server], ["SIM1"]) as [phone]:
        assert await server.is_answering(phone.address, timeout_seconds=PATIENCE_SECONDS)
        phone.device.control.change(answer="hang")
        assert await server.is_answering(phone.address, timeout_seconds=PATIENCE_SECONDS)
        phone.device.control.change(answer="black_hole")
        assert not await server.is_answering(phone.address, timeout_seconds=1)
        phone.device.control.change(answer="normal")
