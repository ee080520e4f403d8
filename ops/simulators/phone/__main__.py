"""Runs simulated phones until it is told to stop: `python -m ops.simulators.phone --listen 127.0.0.2:5600`."""

import argparse
import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from ops.simulators.phone.behaviour import described, read_changes
from ops.simulators.phone.control_port import serving_control
from ops.simulators.phone.device import MODEL
from ops.simulators.phone.fleet import FIRST_SERIAL, numbered, phones, told_apart

_DEFAULT_LISTEN = "127.0.0.2:5600"
_MOST_PHONES = 200


def _address(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{value!r} is not HOST:PORT")
    return host, int(port)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ops.simulators.phone",
        description="Simulated phones for a real adb server.",
        epilog=described(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen",
        type=_address,
        default=_address(_DEFAULT_LISTEN),
        metavar="HOST:PORT",
        help="of the first phone; each further one takes the next address",
    )
    parser.add_argument("--count", type=int, default=1, help="how many phones")
    parser.add_argument("--serial", default=FIRST_SERIAL, help="what ro.serialno says; further phones count up")
    parser.add_argument("--same-serial", action="store_true", help="every phone has that serial")
    parser.add_argument(
        "--switch", action="append", default=[], metavar="NAME=VALUE", help="begin with this behaviour; see below"
    )
    parser.add_argument("--effects", type=Path, metavar="FILE", help="append every effect to this JSON Lines file")
    parser.add_argument(
        "--effects-folder", type=Path, metavar="FOLDER", help="the same, one file SERIAL.jsonl for each phone"
    )
    parser.add_argument("--shift-px", type=int, default=0, help="draw every app so much further down")
    parser.add_argument("--no-keyboard", action="store_true", help="without ADBKeyboard: only ASCII can be typed")
    parser.add_argument("--control", type=_address, metavar="127.0.0.1:PORT", help="serve the control port here")
    arguments = parser.parse_args()
    if arguments.control is not None and arguments.control[0] != "127.0.0.1":
        parser.error("--control must be on 127.0.0.1: it asks for no password")
    if not 0 < arguments.count <= _MOST_PHONES:
        parser.error(f"--count must be 1 to {_MOST_PHONES}")
    if arguments.effects is not None and (arguments.count > 1 or arguments.effects_folder is not None):
        parser.error("--effects is for one phone; give --effects-folder for several")
    return arguments


def _logs(arguments: argparse.Namespace, serials: list[str]) -> list[Path | None]:
    if arguments.effects_folder is None:
        return [arguments.effects] * len(serials)
    arguments.effects_folder.mkdir(parents=True, exist_ok=True)
    return [arguments.effects_folder / f"{name}.jsonl" for name in told_apart(serials)]


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    host, port = arguments.listen
    serials = (
        [arguments.serial] * arguments.count if arguments.same_serial else numbered(arguments.serial, arguments.count)
    )
    changes = {"shift_px": arguments.shift_px, **read_changes(arguments.switch)}
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            phones(serials, host=host, port=port, logs=_logs(arguments, serials), keyboard=not arguments.no_keyboard)
        )
        for phone in running:
            phone.device.control.change(**changes)
            _say(f"{MODEL} {phone.name} listens on {phone.address}; connect it with: adb connect {phone.address}")
        if arguments.control is not None:
            controls = {phone.name: phone.device.control for phone in running}
            port = await stack.enter_async_context(serving_control(controls, port=arguments.control[1]))
            _say(f"control on 127.0.0.1:{port}")
        await stop.wait()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        asyncio.run(_run(_arguments()))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"simulated phone: {error}\n")
        raise SystemExit(1) from error
