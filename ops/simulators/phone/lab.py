"""Sets up what tests of the Android pool need: private, real adb servers, and simulated phones connected to them."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts.settings import child_environment
from ops.simulators.phone.device import Device
from ops.simulators.phone.fleet import Listening, phones
from ops.simulators.phone.interpreter import run
from ops.simulators.phone.streams import Captured, Source
from ops.stack.binaries import adb
from workers.android.adb.server import AdbFailure, AdbServer
from workers.android.adb.states import READY

PHONE_HOST = "127.0.0.2"
"""Not 127.0.0.1, where adb takes a listener for an emulator and gives it another serial."""
_START_SECONDS = 30.0
_CALL_SECONDS = 5.0
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command line printed and ended with."""

    stdout: bytes
    stderr: bytes
    exit_code: int


async def shell(device: Device, line: str, *, stdin: bytes = b"") -> Printed:
    """Run a command line on a phone without any adb between.

    Args:
        device: Whose shell runs it.
        line: As it would be given to `adb shell`.
        stdin: Its input.
    """
    out, err = Captured(), Captured()
    exit_code = await run(device, line, stdin=Source(stdin), out=out, err=err)
    return Printed(bytes(out.content), bytes(err.content), exit_code)


@asynccontextmanager
async def running_adb_server(
    home: Path, *, port: int | None = None, program: str | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[AdbServer]:
    """Run an adb server with its own keys while the block runs.

    Args:
        home: An empty folder for its keys and logs.
        port: On 127.0.0.1; None takes a free one.
        program: The adb to run; None takes the one that the stack runs.
        environment: What that program needs besides, such as where its libraries are.
    """
    server = AdbServer("127.0.0.1", port or _free_port())
    variables = {"HOME": str(home), "TMPDIR": str(home), "ADB_MDNS": "0", "ADB_USB": "0", "ADB_EMU": "0"}
    process = await asyncio.create_subprocess_exec(
        *(program or adb(), "-L", f"tcp:localhost:{server.port}", "nodaemon", "server"),
        env=child_environment({**variables, **(environment or {})}, drop_prefix="ADB_"),
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
    server: AdbServer, serial: str, *, effects: Path | None = None, port: int = 0, keyboard: bool = True
) -> AsyncIterator[Device]:
    """Run a simulated phone in this process, connected to the server and ready, while the block runs.

    Args:
        server: Which is told to connect to it, and to forget it at the end.
        serial: Its `ro.serialno`.
        effects: File for its effect log.
        port: On PHONE_HOST; 0 takes a free one.
        keyboard: Whether ADBKeyboard is installed.
    """
    async with connected_phones([server], [serial], logs=[effects], port=port, keyboard=keyboard) as [phone]:
        yield phone.device


@asynccontextmanager
async def connected_phones(
    servers: Sequence[AdbServer],
    serials: Sequence[str],
    *,
    logs: Sequence[Path | None] | None = None,
    port: int = 0,
    keyboard: bool = True,
) -> AsyncIterator[list[Listening]]:
    """Run several simulated phones in this process, connected and ready, while the block runs.

    Args:
        servers: Each is told to connect to every phone, and to forget it at the end.
        serials: One for each phone.
        logs: Files for their effects, one for each phone; None keeps none.
        port: The same on PHONE_HOST and the addresses after it; 0 takes free ones.
        keyboard: Whether ADBKeyboard is installed.
    """
    files = logs if logs is not None else [None] * len(serials)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            phones(serials, host=PHONE_HOST, port=port, logs=files, keyboard=keyboard)
        )
        for server in servers:
            for phone in running:
                stack.push_async_callback(_forget, server, phone.address)
                await server.connect(phone.address, timeout_seconds=_CALL_SECONDS)
            for phone in running:
                await until_state(server, phone.address, READY)
        yield running


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
