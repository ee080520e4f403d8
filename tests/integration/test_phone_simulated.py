import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image

from ops.phone.behaviour import control_phone
from ops.phone.effects import read_effects
from ops.phone.lab import PHONE_HOST, running_adb_server, until_state
from ops.stack.binaries import adb
from workers.android.adb import AdbServer

TRACE_COLOUR = (220, 60, 60)
DEADLINE_SECONDS = 60


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AdbServer]:
    async with running_adb_server(tmp_path_factory.mktemp("adb")) as running:
        yield running


class Phone:
    """A simulated phone in its own process, as a person starts one, used through the adb program."""

    def __init__(self, process: asyncio.subprocess.Process, server: AdbServer, address: str, control_port: int) -> None:
        self.process = process
        self.server = server
        self.address = address
        self.control_port = control_port

    async def adb(self, *arguments: str) -> tuple[int, bytes, str]:
        process = await asyncio.create_subprocess_exec(
            *(adb(), "-P", str(self.server.port), "-s", self.address, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(DEADLINE_SECONDS):
            stdout, stderr = await process.communicate()
        return process.returncode or 0, stdout, stderr.decode()

    async def shell(self, line: str) -> str:
        code, stdout, stderr = await self.adb("shell", line)
        assert (code, stderr) == (0, "")
        return stdout.decode()


@asynccontextmanager
async def started(server: AdbServer, *arguments: str, address: str = f"{PHONE_HOST}:0") -> AsyncIterator[Phone]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.phone", "--listen", address, "--control", "127.0.0.1:0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            listens = (await process.stdout.readline()).decode().split()
            control = (await process.stdout.readline()).decode().split()
        phone = Phone(process, server, listens[-1], int(control[-1].partition(":")[2]))
        await server.connect(phone.address, timeout_seconds=DEADLINE_SECONDS)
        await until_state(server, phone.address, "device")
        yield phone
        await server.disconnect(phone.address, timeout_seconds=DEADLINE_SECONDS)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")


async def test_it_says_plainly_that_it_is_simulated(server: AdbServer) -> None:
    async with started(server, "--serial", "SIMPHONE0007") as phone:
        assert await phone.shell("getprop ro.product.model") == "ISH Simulated Phone\n"
        assert await phone.shell("getprop ro.serialno") == "SIMPHONE0007\n"
        assert "level: 87" in await phone.shell("dumpsys battery")
        assert await phone.shell("wm size") == "Physical size: 720x1280\n"
        assert "package:com.ish.notes" in await phone.shell("pm list packages")
        assert await phone.shell("settings get secure nothing") == "null\n"
        assert await phone.shell("monkey -p com.ish.notes -c android.intent.category.LAUNCHER 1")
        assert "com.ish.notes/.Notes" in await phone.shell("dumpsys window | grep mFocusedApp")


async def test_exit_codes_and_errors_are_those_of_a_phone(server: AdbServer) -> None:
    async with started(server) as phone:
        assert await phone.adb("shell", "exit 7") == (7, b"", "")
        assert await phone.adb("shell", "foo") == (127, b"", "/system/bin/sh: foo: inaccessible or not found\n")
        assert await phone.adb("shell", "ls /nope") == (1, b"", "ls: /nope: No such file or directory\n")
        assert await phone.adb("shell", "-x", "ls /nope") == (0, b"ls: /nope: No such file or directory\n", "")
        code, _, error = await phone.adb("reboot")
        assert (code, error) == (1, "error: closed\n")


async def test_a_screenshot_shows_what_was_done(server: AdbServer) -> None:
    async with started(server) as phone:
        _, before, _ = await phone.adb("exec-out", "screencap", "-p")
        await phone.shell("input tap 160 320")  # the icon of Notes
        await phone.shell("input text 'hello%sthere'")
        _, after, _ = await phone.adb("exec-out", "screencap", "-p")

    with Image.open(io.BytesIO(before)) as first, Image.open(io.BytesIO(after)) as second:
        assert first.size == second.size == (720, 1280)
        assert first.getpixel((160, 306)) != TRACE_COLOUR
        assert second.getpixel((160, 306)) == TRACE_COLOUR
        field = (64, 180, 300, 230)
        assert first.crop(field).tobytes() != second.crop(field).tobytes()


async def test_every_effect_is_in_the_log_with_its_marker(server: AdbServer, tmp_path: Path) -> None:
    log = tmp_path / "effects.jsonl"
    async with started(server, "--effects", str(log)) as phone:
        await phone.shell("ISH_MARKER=first input tap 1 2; input swipe 1 2 3 4 10")
        await phone.shell("input keyevent HOME")
        await phone.adb("shell", "echo $(id)")
    async with started(server, "--effects", str(log)) as phone:
        await phone.shell("am start -n com.ish.browser/.Browser")

    effects = read_effects(log)
    assert [(effect["n"], effect["action"]) for effect in effects] == [
        (1, "tap"),
        (2, "swipe"),
        (3, "key"),
        (4, "syntax_not_simulated"),
        (5, "start_app"),
    ]
    assert effects[0]["marker"] == "first"
    assert effects[0]["argv"] == ["input", "tap", "1", "2"]
    assert all(effect["running"] == 1 for effect in effects)
    assert os.stat(log).st_mode & 0o777 == 0o600  # noqa: PTH116  # the mode is the claim


async def test_large_output_arrives_whole(server: AdbServer) -> None:
    async with started(server) as phone:
        output = await phone.shell("seq 1000000")

    assert output == "".join(f"{number}\n" for number in range(1, 1_000_001))


async def test_permission_is_asked_for_and_given(server: AdbServer) -> None:
    async with started(server) as phone:
        await control_phone(phone.control_port, authorized=False)
        await until_state(server, phone.address, "unauthorized")

        await control_phone(phone.control_port, authorized=True)
        await until_state(server, phone.address, "device")
        assert await phone.shell("whoami") == "shell\n"


async def test_it_vanishes_and_comes_back(server: AdbServer) -> None:
    async with started(server) as phone:
        await control_phone(phone.control_port, present=False)
        await until_state(server, phone.address, "offline")

        await control_phone(phone.control_port, present=True)
        await until_state(server, phone.address, "device")
        assert await phone.shell("whoami") == "shell\n"


async def test_the_control_port_refuses_what_it_does_not_know(server: AdbServer) -> None:
    async with started(server) as phone:
        with pytest.raises(ValueError, match="explode"):
            await control_phone(phone.control_port, answer="explode")
        with pytest.raises(ValueError, match="Extra inputs"):
            await control_phone(phone.control_port, colour="red")

        assert (await control_phone(phone.control_port)).answer == "normal"


async def test_an_address_in_use_is_one_line(server: AdbServer) -> None:
    async with started(server) as phone:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.phone", "--listen", phone.address), stderr=asyncio.subprocess.PIPE
        )
        _, stderr = await process.communicate()

    assert process.returncode == 1
    assert len(stderr.decode().splitlines()) == 1
    assert "address already in use" in stderr.decode()
