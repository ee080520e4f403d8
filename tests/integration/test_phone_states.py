import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.errors import ErrorCode
from ops.simulators.phone.adb_programs import AdbProgram
from ops.simulators.phone.device import Device
from ops.simulators.phone.effects import read_effects
from ops.simulators.phone.files import BIG, BIG_BYTES
from ops.simulators.phone.lab import connected_phones, running_adb_server, until, until_state
from tests.integration.one_phone import BOTH_ADBS
from workers.android.adb.server import MAX_OUTPUT_BYTES, AdbFailure, AdbServer

LIMIT_SECONDS = 1
PATIENCE_SECONDS = 60
MEBIBYTE = 1024 * 1024


pytestmark = BOTH_ADBS


class Phone:
    """A simulated phone in this process, behind a real adb server."""

    def __init__(self, device: Device, server: AdbServer, address: str, log: Path) -> None:
        self.device = device
        self.server = server
        self.address = address
        self.log = log

    async def shell(self, line: str, *, limit_bytes: int = MAX_OUTPUT_BYTES) -> bytes:
        output = await self.server.shell(
            self.address, line, timeout_seconds=PATIENCE_SECONDS, max_output_bytes=limit_bytes
        )
        assert output.exit_code == 0
        return output.stdout

    async def failure(self, line: str, *, within_seconds: float = PATIENCE_SECONDS) -> AdbFailure:
        with pytest.raises(AdbFailure) as caught:
            await self.server.shell(self.address, line, timeout_seconds=within_seconds)
        return caught.value

    async def until(self, state: str) -> None:
        await until_state(self.server, self.address, state)

    def effects(self) -> list[str]:
        return [effect["action"] for effect in read_effects(self.log)]


@pytest.fixture
async def phone(server: AdbServer, tmp_path: Path) -> AsyncIterator[Phone]:
    log = tmp_path / "effects.jsonl"
    async with connected_phones([server], ["SIM1"], logs=[log]) as [running]:
        yield Phone(running.device, server, running.address, log)


async def test_permission_is_withdrawn_and_given_back(phone: Phone) -> None:
    phone.device.control.change(authorized=False)
    await phone.until("unauthorized")
    assert (await phone.failure("true")).code is ErrorCode.DEVICE_UNAUTHORIZED

    phone.device.control.change(authorized=True)
    await phone.until("device")
    assert await phone.shell("whoami") == b"shell\n"


async def test_a_phone_that_vanishes_is_offline_until_it_listens_again(phone: Phone) -> None:
    phone.device.control.change(present=False)
    await phone.until("offline")

    phone.device.control.change(present=True)
    await phone.until("device")
    assert await phone.shell("whoami") == b"shell\n"


@pytest.mark.parametrize("answer", ["hang_open", "hang", "black_hole", "drip"])
async def test_a_phone_that_does_not_finish_recovers_once_it_is_told_to(phone: Phone, answer: str) -> None:
    phone.device.control.change(answer=answer)
    assert (await phone.failure("whoami", within_seconds=LIMIT_SECONDS)).code is ErrorCode.TIMEOUT

    phone.device.control.change(answer="normal")
    assert await phone.shell("whoami") == b"shell\n"
    await until(lambda: phone.device.running == 0)


async def test_dripping_output_never_ends(phone: Phone) -> None:
    phone.device.control.change(answer="drip", drip_seconds=0.01)

    failure = await phone.failure("echo done; input tap 1 2", within_seconds=LIMIT_SECONDS)

    assert failure.code is ErrorCode.TIMEOUT
    assert phone.effects() == ["tap"]


@pytest.mark.parametrize("answer", ["lost", "vanish"])
async def test_an_effect_whose_answer_is_lost_has_happened_once(phone: Phone, answer: str) -> None:
    phone.device.control.change(answer=answer)

    failure = await phone.failure("input tap 1 2")

    assert (failure.code, failure.begun) == (ErrorCode.DEVICE_OFFLINE, True)
    assert phone.effects() == ["tap"]
    if answer == "vanish":
        await phone.until("offline")
        assert not phone.device.behaviour.present


async def test_a_phone_that_vanishes_in_the_middle_ends_what_it_was_doing(phone: Phone) -> None:
    async with asyncio.TaskGroup() as tasks:
        failing = tasks.create_task(phone.failure("input swipe 1 2 3 4 60000; input tap 1 2"))
        await until(lambda: phone.device.running > 0)
        phone.device.control.change(present=False)

    assert failing.result().code is ErrorCode.DEVICE_OFFLINE
    [swipe] = read_effects(phone.log)
    assert "ended_monotonic" in swipe


async def test_fifty_megabytes_arrive_whole_or_as_far_as_they_are_wanted(phone: Phone) -> None:
    assert len(await phone.shell(f"cat {BIG}", limit_bytes=2 * BIG_BYTES)) == BIG_BYTES

    cut = await phone.server.shell(
        phone.address, f"cat {BIG}", timeout_seconds=PATIENCE_SECONDS, max_output_bytes=MEBIBYTE
    )
    assert (len(cut.stdout), cut.truncated) == (MEBIBYTE, True)
    await until(lambda: phone.device.running == 0)


async def test_screenshots_may_be_garbage_cut_off_or_warned_of(phone: Phone) -> None:
    whole = await phone.shell("screencap -p", limit_bytes=8 * MEBIBYTE)

    phone.device.control.change(screencap="garbage")
    assert b"IHDR" not in await phone.shell("screencap -p")
    phone.device.control.change(screencap="truncated")
    assert b"IEND" not in await phone.shell("screencap -p", limit_bytes=8 * MEBIBYTE)
    phone.device.control.change(screencap="warned")
    warned = await phone.shell("screencap -p", limit_bytes=8 * MEBIBYTE)
    assert re.match(rb"\[Warning\] .*\n\x89PNG", warned)
    assert whole.startswith(b"\x89PNG")


async def test_slow_programs_overlap_when_two_are_sent_at_once_and_the_log_shows_it(phone: Phone) -> None:
    phone.device.control.change(slow_seconds={"input": 0.3})
    async with asyncio.TaskGroup() as tasks:
        for number in range(2):
            tasks.create_task(phone.shell(f"input tap {number} 0"))

    first, second = read_effects(phone.log)
    assert (first["running"], second["running"]) == (1, 2)
    assert first["monotonic"] < second["monotonic"] < first["ended_monotonic"] < second["ended_monotonic"]


async def test_two_adb_servers_drive_one_phone(phone: Phone, tmp_path: Path, program: AdbProgram) -> None:
    async with running_adb_server(tmp_path, program=program.path, environment=program.environment) as other:
        await other.connect(phone.address, timeout_seconds=PATIENCE_SECONDS)
        await until_state(other, phone.address, "device")

        output = await other.shell(phone.address, "input tap 1 2", timeout_seconds=PATIENCE_SECONDS)
        await phone.shell("input tap 3 4")

    assert output.exit_code == 0
    assert phone.effects() == ["tap", "tap"]
