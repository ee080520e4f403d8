import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ops.simulators.phone.control_port import control_phone
from ops.simulators.phone.effects import read_effects
from ops.simulators.phone.lab import PHONE_HOST, until_state
from workers.android.adb.server import AdbServer

COUNT = 20
COMMANDS = 25
PATIENCE_SECONDS = 60


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.send_signal(signal.SIGINT)
        await running.communicate()


async def line_of(running: asyncio.subprocess.Process) -> str:
    assert running.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await running.stdout.readline()).decode().rstrip("\n")


async def test_twenty_phones_in_one_process_keep_apart(server: AdbServer, tmp_path: Path) -> None:
    options = ("--count", str(COUNT), "--serial", "SIM08", "--listen", f"{PHONE_HOST}:0", "--control", "127.0.0.1:0")
    async with process("ops.simulators.phone", *options, "--effects-folder", str(tmp_path)) as running:
        addresses = [(await line_of(running)).split()[-1] for _ in range(COUNT)]
        control_port = int((await line_of(running)).rpartition(":")[2])
        for address in addresses:
            await server.connect(address, timeout_seconds=PATIENCE_SECONDS)
        for address in addresses:
            await until_state(server, address, "device")

        async def use(address: str) -> bytes:
            for number in range(COMMANDS):
                tap = f"input tap {number} 0"
                assert (await server.shell(address, tap, timeout_seconds=PATIENCE_SECONDS)).exit_code == 0
            return (await server.shell(address, "getprop ro.serialno", timeout_seconds=PATIENCE_SECONDS)).stdout

        async with asyncio.TaskGroup() as tasks:
            serials = [tasks.create_task(use(address)) for address in addresses]

        with pytest.raises(ValueError, match="phone must be one of SIM08, SIM09"):
            await control_phone(control_port, present=False)
        await control_phone(control_port, phone="SIM10", present=False)
        await until_state(server, addresses[2], "offline")
        assert (await control_phone(control_port, phone="SIM09")).present

    assert [serial.result() for serial in serials] == [b"SIM%02d\n" % number for number in range(8, 8 + COUNT)]
    assert len({address.partition(":")[0] for address in addresses}) == COUNT
    for number in range(8, 8 + COUNT):
        effects = read_effects(tmp_path / f"SIM{number:02}.jsonl")
        assert [effect["x"] for effect in effects] == list(range(COMMANDS))
        assert {effect["serial"] for effect in effects} == {f"SIM{number:02}"}
    assert running.returncode == 0


async def test_ish_phone_start_connects_a_phone_and_tells_what_happens_on_it(
    server: AdbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISH_ADB_SERVERS", str(server))
    monkeypatch.setenv("ISH_STATE_DIR", str(tmp_path / "state"))
    options = ("--count", "2", "--serial", "PLAY1", "--effects", str(tmp_path), "--port", "15600")
    async with process("ops", "phone", "start", *options) as running:
        address = (await line_of(running)).removeprefix("PLAY1 listens on ")
        assert (await line_of(running)).startswith("PLAY2 listens on ")
        assert (await line_of(running)).startswith(f"connected to the adb server at {server}")
        await until_state(server, address, "device")

        await server.shell(address, "input tap 160 320", timeout_seconds=PATIENCE_SECONDS)

        shown = await line_of(running)
        assert shown.startswith("PLAY1")
        assert shown.endswith("input tap 160 320  -> Notes")
    assert running.returncode == 0
    assert [effect["action"] for effect in read_effects(tmp_path / "PLAY1.jsonl")] == ["tap"]
    assert read_effects(tmp_path / "PLAY2.jsonl") == []
    assert not {address} & {phone.serial for phone in await server.phones(timeout_seconds=PATIENCE_SECONDS)}


async def test_ish_phone_start_without_a_stack_says_how_to_connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISH_ADB_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("ISH_STATE_DIR", str(tmp_path))
    async with process("ops", "phone", "start", "--port", "15700") as running:
        address = (await line_of(running)).split()[-1]
        note = await line_of(running)

        assert "no adb server answers at 127.0.0.1:1" in note
        assert f"adb connect {address}" in note
    assert running.returncode == 0
