"""Sets up what tests of the Android pool need: a private, real adb server, and simulated phones connected to it."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from contracts.settings import child_environment
from ops.phone.adbd import serving
from ops.phone.device import Device
from ops.phone.effects import EffectLog
from ops.stack.binaries import adb
from workers.android.adb import AdbFailure, AdbServer
from workers.android.states import READY

PHONE_HOST = "127.0.0.2"
"""Not 127.0.0.1, where adb takes a listener for an emulator and gives it another serial."""
_START_SECONDS = 30.0
_CALL_SECONDS = 5.0
_PAUSE_SECONDS = 0.02


@asynccontextmanager
async def running_adb_server(
    home: Path, *, port: int | None = None, program: str | None = None
) -> AsyncIterator[AdbServer]:
    """Run an adb server with its own keys while the block runs.

    Args:
        home: An empty folder for its keys and logs.
        port: On 127.0.0.1; None takes a free one.
        program: The adb to run; None takes the one that the stack runs.
    """
    server = AdbServer("127.0.0.1", port or _free_port())
    variables = {"HOME": str(home), "TMPDIR": str(home), "ADB_MDNS": "0", "ADB_USB": "0", "ADB_EMU": "0"}
    process = await asyncio.create_subprocess_exec(
        *(program or adb(), "-L", f"tcp:localhost:{server.port}", "nodaemon", "server"),
        env=child_environment(variables, drop_prefix="ADB_"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await _until_it_answers(server)
        yield server
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)  # it keeps nothing that a gentler end would save
        await process.wait()


@asynccontextmanager
async def connected_phone(
    server: AdbServer, serial: str, *, effects: Path | None = None, port: int = 0
) -> AsyncIterator[Device]:
    """Run a simulated phone in this process, connected to the server and ready, while the block runs.

    Args:
        server: Which is told to connect to it, and to forget it at the end.
        serial: Its `ro.serialno`.
        effects: File for its effect log.
        port: On PHONE_HOST; 0 takes a free one.
    """
    log = EffectLog(effects)
    device = Device(serial, log)
    try:
        async with serving(device, host=PHONE_HOST, port=port) as bound:
            address = f"{PHONE_HOST}:{bound}"
            await server.connect(address, timeout_seconds=_CALL_SECONDS)
            await until_state(server, address, READY)
            try:
                yield device
            finally:
                await _forget(server, address)
    finally:
        log.close()


async def until(holds: Callable[[], bool]) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: It does not within 30 s.
    """
    async with asyncio.timeout(_START_SECONDS):
        while True:
            if holds():
                return
            await asyncio.sleep(_PAUSE_SECONDS)


async def until_state(server: AdbServer, transport_serial: str, state: str) -> None:
    """Return once the server lists the phone in this state.

    Raises:
        TimeoutError: It does not within 30 s.
    """
    async with asyncio.timeout(_START_SECONDS):
        while True:
            listed = await server.phones(timeout_seconds=_CALL_SECONDS)
            if any(phone.serial == transport_serial and phone.state == state for phone in listed):
                return
            await asyncio.sleep(_PAUSE_SECONDS)


async def _until_it_answers(server: AdbServer) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                await server.phones(timeout_seconds=_CALL_SECONDS)
            except AdbFailure:
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return


async def _forget(server: AdbServer, address: str) -> None:
    try:
        await server.disconnect(address, timeout_seconds=_CALL_SECONDS)
    except AdbFailure:
        return  # the server is gone, or has forgotten it already


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
