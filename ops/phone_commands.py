"""`ish phone`: simulated phones to play with, connected to the running stack."""

import asyncio
import ipaddress
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from contracts.settings import Settings, read_settings, stop
from ops.phone.fleet import Listening, numbered, phones
from ops.phone.status import effect_line, status
from ops.stack.layout import LOOPBACK, PHONE_HOST, Layout
from ops.stack.probes import port_is_free
from workers.android.adb import DEFAULT_PORT, AdbFailure, AdbServer

app = typer.Typer(help="Simulated phones, to try things without a real one.", no_args_is_help=True)

_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 0.25
_MOST_PHONES = 200
_LAST_HOST = ipaddress.IPv4Address("127.0.0.254")


@app.callback()
def phone() -> None:
    """Simulated phones, to try things without a real one."""


@app.command()
def start(
    *,
    count: Annotated[int, typer.Option(min=1, max=_MOST_PHONES, help="How many, each with an address of its own.")] = 1,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Where they listen.")] = None,
    serial: Annotated[str | None, typer.Option(help="What ro.serialno says; further phones count up.")] = None,
    shift_px: Annotated[
        int, typer.Option(min=-1000, max=1000, help="Draw every app so much further down, to try flows.")
    ] = 0,
    keyboard: Annotated[bool, typer.Option(help="With ADBKeyboard; without it only ASCII can be typed.")] = True,
    effects: Annotated[Path | None, typer.Option(help="Folder for a log of every effect, SERIAL.jsonl.")] = None,
) -> None:
    """Run simulated phones until Ctrl-C, and show what happens on them."""
    settings = read_settings()
    layout = Layout.of(settings)
    own_port = port if port is not None else layout.ports.phone
    host = _free_host(own_port, count)
    if host is None:
        stop(f"port {own_port} is in use on the addresses from {PHONE_HOST} on; give another --port", code=1)
    first = serial if serial is not None else f"SIMPHONE{int(host.rpartition('.')[2]) - 1:04}"
    if effects is not None:
        effects.mkdir(parents=True, exist_ok=True)
    serials = numbered(first, count)
    logs = [effects / f"{each}.jsonl" if effects is not None else None for each in serials]
    servers = _servers(settings, layout)

    async def run() -> None:
        async with phones(serials, host=host, port=own_port, logs=logs, keyboard=keyboard) as running:
            for listening in running:
                listening.device.control.change(shift_px=shift_px)
            async with _connected(servers, running) as note:
                await _show(running, note)

    try:
        asyncio.run(run())
    except (OSError, ValueError) as error:
        stop(str(error), code=1)


def _servers(settings: Settings, layout: Layout) -> list[AdbServer]:
    """The adb servers of this stack; the stack's own one unless others were given."""
    given = [each.strip() for each in settings.adb_servers.split(",") if each.strip()]
    if not given:
        return [AdbServer(LOOPBACK, layout.ports.adb)]
    servers = []
    for address in given:
        host, _, port = address.partition(":")
        servers.append(AdbServer(host, int(port) if port.isdigit() else DEFAULT_PORT))
    return servers


def _free_host(port: int, count: int) -> str | None:
    """The first of so many neighbouring addresses on which the port is free; None when there are none."""
    first = ipaddress.IPv4Address(PHONE_HOST)
    while first + count - 1 <= _LAST_HOST:
        taken = [place for place in range(count) if not port_is_free(str(first + place), port)]
        if not taken:
            return str(first)
        first += taken[-1] + 1
    return None


@asynccontextmanager
async def _connected(servers: Sequence[AdbServer], running: Sequence[Listening]) -> AsyncIterator[str]:
    """Connect the phones to every server that answers, while the block runs; yields what to tell the person."""
    told: list[str] = []
    async with AsyncExitStack() as stack:
        for server in servers:
            try:
                for phone in running:
                    await server.connect(phone.address, timeout_seconds=_CONNECT_SECONDS)
                    stack.push_async_callback(_disconnect, server, phone.address)
            except AdbFailure as failure:
                lines = " ".join(f"adb connect {phone.address};" for phone in running[:1])
                told.append(f"not connected: {failure.message}; by hand: {lines.rstrip(';')}")
            else:
                told.append(f"connected to the adb server at {server}; try {_example(server, running[0])}")
        yield "; ".join(told) + ". Ctrl-C stops it."


def _example(server: AdbServer, phone: Listening) -> str:
    return f"`adb -H {server.host} -P {server.port} -s {phone.address} shell input tap 160 320`"


async def _disconnect(server: AdbServer, address: str) -> None:
    try:
        await server.disconnect(address, timeout_seconds=_CONNECT_SECONDS)
    except AdbFailure:
        return  # the server has gone, and has forgotten it anyway


async def _show(running: Sequence[Listening], note: str) -> None:
    """Show the phones until the person has had enough."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        await _show_live(console, running, note, stopping)
        return
    for phone in running:
        console.print(f"{phone.device.serial} listens on {phone.address}", markup=False)
    console.print(note, markup=False)
    seen = {phone.device.serial: phone.device.effects.count for phone in running}
    while not await _is_set_within(stopping, _LOOK_SECONDS):
        for phone in running:
            for effect in phone.device.effects.latest:
                if effect["n"] > seen[phone.device.serial]:
                    seen[phone.device.serial] = effect["n"]
                    console.print(f"{phone.device.serial}  {effect_line(effect)}", markup=False)


async def _show_live(console: Console, running: Sequence[Listening], note: str, stopping: asyncio.Event) -> None:
    with Live(status(running, note=note), console=console, auto_refresh=False) as live:
        while not await _is_set_within(stopping, _LOOK_SECONDS):
            live.update(status(running, note=note), refresh=True)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
