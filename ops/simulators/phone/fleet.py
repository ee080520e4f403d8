"""One or many simulated phones in one process: their serials, addresses and effect logs."""

import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.simulators.phone.adbd import serving
from ops.simulators.phone.device import Device
from ops.simulators.phone.effects import EffectLog

FIRST_SERIAL = "SIMPHONE0001"


@dataclass(frozen=True, slots=True)
class Listening:
    """A phone and where it listens."""

    device: Device
    address: str
    """`host:port`, as `adb connect` wants it."""
    name: str
    """Its serial; of phones with the same serial, numbered ones: `SERIAL-2`."""


@asynccontextmanager
async def phones(
    serials: Sequence[str], *, host: str, port: int, logs: Sequence[Path | None], keyboard: bool = True
) -> AsyncIterator[list[Listening]]:
    """Run phones while the block runs, each on an address of its own.

    Args:
        serials: One for each phone.
        host: The first one's address; each further phone takes the next one.
        port: The same on every address; 0 takes a free one on each.
        logs: Files for their effects, one for each phone; None keeps no file.
        keyboard: Whether ADBKeyboard is installed.

    Yields:
        The phones in the order of their serials.

    Raises:
        OSError: An address is not this machine's or is in use.
    """
    first = ipaddress.IPv4Address(host)
    async with AsyncExitStack() as stack:
        listening, names = [], told_apart(serials)
        for place, (serial, path) in enumerate(zip(serials, logs, strict=True)):
            log = EffectLog(path)
            stack.callback(log.close)
            device = Device(serial, log, keyboard=keyboard)
            own = str(first + place)
            bound = await stack.enter_async_context(serving(device, host=own, port=port))
            listening.append(Listening(device, f"{own}:{bound}", names[place]))
        yield listening


def told_apart(serials: Sequence[str]) -> list[str]:
    """One name for each phone: its serial, and a number behind it where another has the same one.

    Args:
        serials: What `ro.serialno` says on each.
    """
    return [
        serial if serial and serials.count(serial) == 1 else f"{serial or 'phone'}-{place}"
        for place, serial in enumerate(serials, 1)
    ]


def numbered(first_serial: str, count: int) -> list[str]:
    """Serials that count up from the first one, such as SIMPHONE0001 and SIMPHONE0002.

    Args:
        first_serial: With or without digits at its end.
        count: How many.
    """
    if count == 1:
        return [first_serial]
    name = first_serial.rstrip("0123456789")
    digits = first_serial[len(name) :] or "1"
    return [f"{name}{number:0{len(digits)}}" for number in range(int(digits), int(digits) + count)]
