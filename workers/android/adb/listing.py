"""Reads what an adb server lists: `host:devices-l`, one line a phone with its name, its state and facts.

The name may hold spaces, as that of a phone found by wireless debugging does: `adb-3512-jr888A (2)._adb-tls-connect._tcp`.
Source: `append_transport` in system/core/adb/transport.cpp of the Android Open Source Project.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workers.android.adb.states import AMBIGUOUS

_STATES = (
    "device|offline|unauthorized|authorizing|connecting|bootloader|recovery|rescue|sideload|host|detached|unknown|no device"
    r"|no permissions.*?"
)
_FACTS = r"(?P<facts>(?:\s+(?:[a-z_]+:\S*|\d+-[\d.]+))*)"
_PORT = re.compile(r"usb:\S+|\d+-[\d.]+")
_LISTED = re.compile(rf"(?P<serial>\S.*?)\s+(?P<state>{_STATES}){_FACTS}")
_LISTED_IN_ANOTHER_STATE = re.compile(rf"(?P<serial>\S+)\s+(?P<state>.*?){_FACTS}")


@dataclass(frozen=True, slots=True)
class ListedPhone:
    """One line of what an adb server says is connected."""

    serial: str
    """The transport's name: a USB phone's serial number, the host:port of one on the network, or a service's name. Of
    several phones with the same serial number at one server it is the USB port, `usb:1-4.2`, which adb takes as well."""
    state: str
    """`device` is ready; others are `unauthorized`, `offline`, `recovery`, …"""
    transport_id: str
    """Changes each time the phone is connected; empty when the server gives none."""
    usb_port: str = ""
    """Such as `usb:1-4.2`; empty for a phone on the network."""


def read_listing(answer: str) -> list[ListedPhone]:
    """Every phone in the answer to `host:devices-l`; names that several of them have are left to their USB ports.

    Args:
        answer: As the server gave it.
    """
    listed = [phone for line in answer.splitlines() if (phone := _read_line(line.strip())) is not None]
    return _told_apart(listed)


def _read_line(line: str) -> ListedPhone | None:
    match = _LISTED.fullmatch(line) or _LISTED_IN_ANOTHER_STATE.fullmatch(line)
    if match is None:
        return None
    facts = match["facts"].split()
    return ListedPhone(
        match["serial"],
        match["state"].strip(),
        next((fact.partition(":")[2] for fact in facts if fact.startswith("transport_id:")), ""),
        next(filter(_PORT.fullmatch, facts), ""),
    )


def _told_apart(listed: Sequence[ListedPhone]) -> list[ListedPhone]:
    """Phones of one name are asked for by their USB ports; those without a port cannot be asked for at all."""
    times = Counter(phone.serial for phone in listed)
    ports = Counter(phone.usb_port for phone in listed)
    apart: dict[str, ListedPhone] = {}
    for phone in listed:
        if times[phone.serial] == 1:
            apart[phone.serial] = phone
        elif phone.usb_port and ports[phone.usb_port] == 1:
            apart[phone.usb_port] = replace(phone, serial=phone.usb_port)
        else:
            apart[phone.serial] = replace(phone, state=AMBIGUOUS, transport_id="")
    return list(apart.values())
