"""`ish phone`: simulated phones to play with, connected to the running stack."""

import asyncio
import ipaddress
import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from contracts.settings import Settings, read_settings, stop
from ops.cli.terminal import console, write_json, write_line
from ops.simulators.phone.behaviour import described, read_changes
from ops.simulators.phone.control_port import control_phone, serving_control
from ops.simulators.phone.fleet import Listening, numbered, phones, told_apart
from ops.simulators.phone.status import effect_line, status
from ops.stack.layout import LOOPBACK, PHONE_HOST, Layout
from ops.stack.probes import port_is_free
from workers.android.adb.server import AdbFailure, AdbServer
from workers.android.monitor.devices import parse_servers

app = typer.Typer(help="Simulated phones, to try things without a real one.", no_args_is_help=True)

_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 0.25
_MOST_PHONES = 200
_LAST_HOST = ipaddress.IPv4Address("127.0.0.254")


@app.callback()
def phone() -> None:
    """Simulated phones, to try things without a real one."""


_SWITCHES = f"Switches of a simulated phone, each with its default:\n\n{described()}"


@app.command(epilog=_SWITCHES)
def start(
    *,
    count: Annotated[int, typer.Option(min=1, max=_MOST_PHONES, help="How many, each with an address of its own.")] = 1,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Where they listen.")] = None,
    serial: Annotated[str | None, typer.Option(help="What ro.serialno says; further phones count up.")] = None,
    shift_px: Annotated[
        int, typer.Option(min=-1000, max=1000, help="Draw every app so much further down, to try flows.")
    ] = 0,
    keyboard: Annotated[bool, typer.Option(help="With ADBKeyboard; without it only ASCII can be typed.")] = True,
    same_serial: Annotated[
        bool, typer.Option("--same-serial", help="All have one ro.serialno, as emulators of one build do.")
    ] = False,
    switch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Begin with this behaviour; may be repeated. `ish phone change` changes it later.",
        ),
    ] = None,
    control: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port on 127.0.0.1 for `ish phone change`. Default: that of the phones."),
    ] = None,
    effects: Annotated[Path | None, typer.Option(help="Folder for a log of every effect, SERIAL.jsonl.")] = None,
) -> None:
    """Run simulated phones until Ctrl-C, and show what happens on them."""
    settings = read_settings()
    layout = Layout.of(settings)
    own_port = port if port is not None else layout.ports.phone
    host = _free_host(own_port, count)
    if host is None:
        stop(f"port {own_port} is in use on the addresses from {PHONE_HOST} on; give another --port", code=1)
    try:
        changes = {"shift_px": shift_px, **read_changes(switch or [])}
    except ValueError as error:
        stop(f"--switch: {error}", code=2)
    first = serial if serial is not None else f"SIMPHONE{int(host.rpartition('.')[2]) - 1:04}"
    if effects is not None:
        effects.mkdir(parents=True, exist_ok=True)
    serials = [first] * count if same_serial else numbered(first, count)
    logs = [effects / f"{each}.jsonl" if effects is not None else None for each in told_apart(serials)]
    servers = _servers(settings, layout)

    async def run() -> None:
        async with phones(serials, host=host, port=own_port, logs=logs, keyboard=keyboard) as running:
            for listening in running:
                listening.device.control.change(**changes)
            controls = {each.name: each.device.control for each in running}
            async with (
                serving_control(controls, port=_control_port(control, own_port)) as bound,
                _connected(servers, running) as note,
            ):
                await _show(running, f"{note} `ish phone change --control {bound} NAME=VALUE` changes a switch.")

    try:
        asyncio.run(run())
    except (OSError, ValueError) as error:
        stop(str(error), code=1)


@app.command(epilog=_SWITCHES)
def change(
    changes: Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="None only shows them.")] = None,
    *,
    phone: Annotated[str | None, typer.Option(help="Which one, by its serial, when several run.")] = None,
    control: Annotated[int | None, typer.Option(min=1, max=65535, help="As `ish phone start` tells it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Change switches of a running simulated phone, and show them all."""
    port = control if control is not None else Layout.of(read_settings()).ports.phone
    try:
        behaviour = asyncio.run(control_phone(port, phone=phone, **read_changes(changes or [])))
    except ValueError as error:
        stop(str(error), code=2)
    except OSError:
        stop(f"no simulated phone is controlled at 127.0.0.1:{port}; `ish phone start` tells its port", code=1)
    if as_json:
        write_json(behaviour.model_dump())
        return
    for name, value in behaviour.model_dump().items():
        write_line(f"{name}={json.dumps(value)}")


def _control_port(asked: int | None, usual: int) -> int:
    """The port that was asked for, or the usual one; a free one when that is taken."""
    if asked is not None:
        return asked
    return usual if port_is_free(LOOPBACK, usual) else 0


def _servers(settings: Settings, layout: Layout) -> list[AdbServer]:
    """The adb servers of this stack; the stack's own one unless others were given."""
    return parse_servers(settings.adb_servers) or [AdbServer(LOOPBACK, layout.ports.adb)]


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
    out = console()
    if out.is_terminal:
        await _show_live(out, running, note, stopping)
        return
    for phone in running:
        write_line(f"{phone.name} listens on {phone.address}")
    write_line(note)
    seen = {phone.name: phone.device.effects.count for phone in running}
    while not await _is_set_within(stopping, _LOOK_SECONDS):
        for phone in running:
            for effect in phone.device.effects.latest:
                if effect["n"] > seen[phone.name]:
                    seen[phone.name] = effect["n"]
                    write_line(f"{phone.name}  {effect_line(effect)}")


async def _show_live(out: Console, running: Sequence[Listening], note: str, stopping: asyncio.Event) -> None:
    with Live(status(running, note=note), console=out, auto_refresh=False) as live:
        while not await _is_set_within(stopping, _LOOK_SECONDS):
            live.update(status(running, note=note), refresh=True)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
