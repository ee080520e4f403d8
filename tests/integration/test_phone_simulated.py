import asyncio
import hashlib
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from ops.simulators.phone.adb_programs import AdbProgram
from ops.simulators.phone.apk import write_apk
from ops.simulators.phone.control_port import control_phone
from ops.simulators.phone.effects import read_effects
from ops.simulators.phone.lab import PHONE_HOST, until_state
from tests.integration.one_phone import BOTH_ADBS
from workers.android.adb.server import AdbServer

TRACE_COLOUR = (220, 60, 60)
DEADLINE_SECONDS = 60


pytestmark = BOTH_ADBS


class Phone:
    """A simulated phone in its own process, as a person starts one, used through the adb program."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        program: AdbProgram,
        server: AdbServer,
        address: str,
        control_port: int,
    ) -> None:
        self.process = process
        self.program = program
        self.server = server
        self.address = address
        self.control_port = control_port

    async def adb(self, *arguments: str) -> tuple[int, bytes, str]:
        process = await asyncio.create_subprocess_exec(
            *(self.program.path, "-P", str(self.server.port), "-s", self.address, *arguments),
            env={**os.environ, **self.program.environment},
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


Start = Callable[..., AbstractAsyncContextManager[Phone]]


@pytest.fixture
def started(program: AdbProgram, server: AdbServer) -> Start:
    return partial(start, program, server)


@asynccontextmanager
async def start(
    program: AdbProgram, server: AdbServer, *arguments: str, address: str = f"{PHONE_HOST}:0"
) -> AsyncIterator[Phone]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.simulators.phone", "--listen", address, "--control", "127.0.0.1:0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            listens = (await process.stdout.readline()).decode().split()
            control = (await process.stdout.readline()).decode().split()
        phone = Phone(process, program, server, listens[-1], int(control[-1].partition(":")[2]))
        await server.connect(phone.address, timeout_seconds=DEADLINE_SECONDS)
        await until_state(server, phone.address, "device")
        yield phone
        await server.disconnect(phone.address, timeout_seconds=DEADLINE_SECONDS)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")


async def test_it_says_plainly_that_it_is_simulated(started: Start) -> None:
    async with started("--serial", "SIMPHONE0007") as phone:
        assert await phone.shell("getprop ro.product.model") == "ISH Simulated Phone\n"
        assert await phone.shell("getprop ro.serialno") == "SIMPHONE0007\n"
        assert "level: 87" in await phone.shell("dumpsys battery")
        assert await phone.shell("wm size") == "Physical size: 720x1280\n"
        assert "package:com.ish.notes" in await phone.shell("pm list packages")
        assert await phone.shell("settings get secure nothing") == "null\n"
        assert await phone.shell("monkey -p com.ish.notes -c android.intent.category.LAUNCHER 1")
        assert "com.ish.notes/.Notes" in await phone.shell("dumpsys window | grep mFocusedApp")


async def test_exit_codes_and_errors_are_those_of_a_phone(started: Start) -> None:
    async with started() as phone:
        assert await phone.adb("shell", "exit 7") == (7, b"", "")
        assert await phone.adb("shell", "foo") == (127, b"", "/system/bin/sh: foo: inaccessible or not found\n")
        assert await phone.adb("shell", "ls /nope") == (1, b"", "ls: /nope: No such file or directory\n")
        assert await phone.adb("shell", "-x", "ls /nope") == (0, b"ls: /nope: No such file or directory\n", "")
        code, _, error = await phone.adb("reboot")
        assert (code, error) == (1, "error: closed\n")


async def test_a_screenshot_shows_what_was_done(started: Start) -> None:
    async with started() as phone:
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


async def test_every_effect_is_in_the_log_with_its_marker(started: Start, tmp_path: Path) -> None:
    log = tmp_path / "effects.jsonl"
    async with started("--effects", str(log)) as phone:
        await phone.shell("ISH_MARKER=first input tap 1 2; input swipe 1 2 3 4 10")
        await phone.shell("input keyevent HOME")
        await phone.adb("shell", "echo $(id)")
    async with started("--effects", str(log)) as phone:
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


async def test_large_output_arrives_whole(started: Start) -> None:
    async with started() as phone:
        output = await phone.shell("seq 1000000")

    assert output == "".join(f"{number}\n" for number in range(1, 1_000_001))


async def test_permission_is_asked_for_and_given(started: Start, server: AdbServer) -> None:
    async with started() as phone:
        await control_phone(phone.control_port, authorized=False)
        await until_state(server, phone.address, "unauthorized")

        await control_phone(phone.control_port, authorized=True)
        await until_state(server, phone.address, "device")
        assert await phone.shell("whoami") == "shell\n"


async def test_it_vanishes_and_comes_back(started: Start, server: AdbServer) -> None:
    async with started() as phone:
        await control_phone(phone.control_port, present=False)
        await until_state(server, phone.address, "offline")

        await control_phone(phone.control_port, present=True)
        await until_state(server, phone.address, "device")
        assert await phone.shell("whoami") == "shell\n"


async def test_the_control_port_refuses_what_it_does_not_know(started: Start) -> None:
    async with started() as phone:
        with pytest.raises(ValueError, match="explode"):
            await control_phone(phone.control_port, answer="explode")
        with pytest.raises(ValueError, match="Extra inputs"):
            await control_phone(phone.control_port, colour="red")

        assert (await control_phone(phone.control_port)).answer == "normal"


async def test_an_address_in_use_is_one_line(started: Start) -> None:
    async with started() as phone:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.simulators.phone", "--listen", phone.address), stderr=asyncio.subprocess.PIPE
        )
        _, stderr = await process.communicate()

    assert process.returncode == 1
    assert len(stderr.decode().splitlines()) == 1
    assert "address already in use" in stderr.decode()


async def test_files_go_to_the_phone_and_come_back(started: Start, tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "there").write_bytes(content)
    async with started("--effects", str(tmp_path / "effects")) as phone:
        assert (await phone.adb("push", str(tmp_path / "there"), "/sdcard/new/folder/file"))[0] == 0
        assert (await phone.adb("pull", "/sdcard/new/folder/file", str(tmp_path / "back")))[0] == 0
        assert (await phone.adb("pull", "/sdcard/new", str(tmp_path / "tree")))[0] == 0
        refused = await phone.adb("push", str(tmp_path / "there"), "/system/file")
        missing = await phone.adb("pull", "/sdcard/none", str(tmp_path / "none"))
        listed = (await phone.adb("ls", "/sdcard/new"))[1].decode()

    assert (tmp_path / "back").read_bytes() == (tmp_path / "tree/folder/file").read_bytes() == content
    assert (refused[0], missing[0]) == (1, 1)
    assert "Read-only file system" in refused[1].decode() + refused[2]
    assert "No such file or directory" in missing[1].decode() + missing[2]
    assert listed.split()[-1] == "folder"
    [pushed] = read_effects(tmp_path / "effects")
    assert pushed["sha256"] == hashlib.sha256(content).hexdigest()
    assert (pushed["action"], pushed["path"], pushed["running"]) == ("push", "/sdcard/new/folder/file", 1)


async def test_apps_are_installed_and_uninstalled(started: Start, tmp_path: Path) -> None:
    (tmp_path / "good.apk").write_bytes(write_apk("org.example.thing"))
    (tmp_path / "bad.apk").write_bytes(b"no app")
    async with started() as phone:
        assert (await phone.adb("install", "-r", str(tmp_path / "good.apk")))[0] == 0
        assert "package:org.example.thing" in await phone.shell("pm list packages")
        code, stdout, stderr = await phone.adb("install", str(tmp_path / "bad.apk"))
        assert code == 1
        assert "INSTALL_PARSE_FAILED_NOT_APK" in stdout.decode() + stderr
        assert await phone.adb("uninstall", "org.example.thing") == (0, b"Success\n", "")
        assert (await phone.adb("uninstall", "org.example.thing"))[0] == 1
        assert "org.example.thing" not in await phone.shell("pm list packages")


async def test_what_is_typed_into_adb_arrives_and_the_log_is_shown(started: Start) -> None:
    async with started() as phone:
        process = await asyncio.create_subprocess_exec(
            *(phone.program.path, "-P", str(phone.server.port), "-s", phone.address, "shell", "cat"),
            env={**os.environ, **phone.program.environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await process.communicate(b"typed\n"))[0] == b"typed\n"
        assert b"the simulated phone has started" in (await phone.adb("logcat", "-d"))[1]


async def test_a_shifted_phone_without_the_keyboard_is_started_so(started: Start) -> None:
    async with started("--shift-px", "300", "--no-keyboard") as phone:
        await phone.shell("am start -n com.ish.notes/.Notes")

        assert 'bounds="[40,460][680,1280]"' in await phone.shell("uiautomator dump /dev/tty")
        assert "adbkeyboard" not in await phone.shell("pm list packages")
        assert (await control_phone(phone.control_port)).shift_px == 300
