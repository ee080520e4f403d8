"""Runs one simulated phone until it is told to stop: `python -m ops.phone --listen 127.0.0.2:5600`."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from ops.phone.adbd import serving
from ops.phone.behaviour import serving_control
from ops.phone.device import MODEL, Device
from ops.phone.effects import EffectLog

_DEFAULT_LISTEN = "127.0.0.2:5600"


def _address(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{value!r} is not HOST:PORT")
    return host, int(port)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.phone", description="A simulated phone for a real adb server.")
    parser.add_argument("--listen", type=_address, default=_address(_DEFAULT_LISTEN), metavar="HOST:PORT")
    parser.add_argument("--serial", default="SIMPHONE0001", help="what ro.serialno says")
    parser.add_argument("--effects", type=Path, metavar="FILE", help="append every effect to this JSON Lines file")
    parser.add_argument("--control", type=_address, metavar="127.0.0.1:PORT", help="serve the control port here")
    arguments = parser.parse_args()
    if arguments.control is not None and arguments.control[0] != "127.0.0.1":
        parser.error("--control must be on 127.0.0.1: it asks for no password")
    return arguments


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    effects = EffectLog(arguments.effects)
    device = Device(arguments.serial, effects)
    host, port = arguments.listen
    try:
        async with serving(device, host=host, port=port) as bound:
            sys.stdout.write(
                f"{MODEL} {device.serial} listens on {host}:{bound}; connect it with: adb connect {host}:{bound}\n"
            )
            sys.stdout.flush()
            if arguments.control is None:
                await stop.wait()
                return
            async with serving_control(device.control, port=arguments.control[1]) as control_port:
                sys.stdout.write(f"control on 127.0.0.1:{control_port}\n")
                sys.stdout.flush()
                await stop.wait()
    finally:
        effects.close()


if __name__ == "__main__":
    try:
        asyncio.run(_run(_arguments()))
    except OSError as error:
        sys.stderr.write(f"simulated phone: {error}\n")
        raise SystemExit(1) from error
