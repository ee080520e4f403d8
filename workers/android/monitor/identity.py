"""Decides, without any I/O, what each connected phone is called, so that a name never passes from one phone to another.

A phone is called by its `ro.serialno` if that tells it from others, else by its address: what its adb server calls it, and
`ADDRESS@SERVER` where two servers have a phone at the same address. In order, a connection's claim to a name is

    MARKED    the phone itself keeps its serial in a file, written by a holder of its lease: wherever it is connected
    ON_RECORD a phone of that name was seen at this address before, and reported the same serial
    FIRST     nobody has the name: nothing on record reports this serial

What claims a name with less right than another phone, or with the same, is called by its address. Two connections with
one serial may also be one phone, by cable and by network: whoever asks for names finds that out, and until it is found
out the later one is set aside.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from workers.android.monitor.devices import DeviceFacts

Connection = tuple[str, str, str]
"""adb server, address and number of a connection."""
AreOne = Callable[[Connection, Connection], bool | None]
"""Whether two connections lead to one phone; None when that is not known yet."""

_NOBODYS = re.compile(
    r"unknown|null|none|default|android|n/?a|(0123456789|1234567890|123456789|012345678)(abcdef)?|0+|f{4,}|x{4,}"
    r"|emulator\d+x\d+x\d+x\d+",
    re.IGNORECASE,
)
"""Serials that makers of phones and of emulators did not change."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+(), -]{0,127}(?<! )")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._:@+(), -]")
_MOST_CHARACTERS = 128


class Right(IntEnum):
    """By what right a connection claims a name; the higher one wins."""

    FIRST = 0
    ON_RECORD = 1
    MARKED = 2


@dataclass(frozen=True, slots=True)
class Sighting:
    """A connected phone that has said who it is."""

    connection: Connection
    reported: str
    """Its `ro.serialno`, which may be empty."""
    marked: bool
    """Whether it keeps that serial as its name."""
    named: str | None = None
    """What it is called and used by on this connection."""


@dataclass(frozen=True, slots=True)
class Name:
    """What a connection's phone is called."""

    name: str
    set_aside: bool = False
    """Whether it may be the phone that has this name, and is not to be used until that is known."""
    shares: str | None = None
    """The serial that it reports, when it is not called by that."""


def usable_serial(reported: str) -> str | None:
    """A reported serial, when it can name a phone.

    Args:
        reported: `ro.serialno`, or the address.
    """
    return reported if _NAME.fullmatch(reported) and not _NOBODYS.fullmatch(reported) else None


def address_name(address: str) -> str:
    """An adb server's name for a phone, as commands can give it.

    Args:
        address: As the server lists it.
    """
    cleaned = _NOT_IN_NAMES.sub("_", address)[:_MOST_CHARACTERS].strip()
    return cleaned if cleaned[:1].isalnum() else f"phone{cleaned}"[:_MOST_CHARACTERS]


def names(seen: Iterable[Sighting], known: Iterable[DeviceFacts], are_one: AreOne) -> dict[Connection, Name]:
    """What each connection's phone is called.

    Args:
        seen: Phones that are connected now and have said who they are.
        known: Phones on record, seen within some days; connected ones among them.
        are_one: Whether two connections lead to one phone.
    """
    sightings = list(seen)
    record = _Record(known, connected={one.connection[:2] for one in sightings})
    claims: dict[str, list[tuple[Right, Sighting]]] = {}
    for one in sightings:
        name, right = _claim(one, record)
        claims.setdefault(name, []).append((right, one))
    found: dict[Connection, Name] = {}
    losers: list[Sighting] = []
    for name, claimants in claims.items():
        _settle(name, claimants, are_one, found, losers)
    _name_by_address(losers, record, are_one, found)
    return found


class _Record:
    """Phones on record, by address and by reported serial."""

    def __init__(self, known: Iterable[DeviceFacts], *, connected: Collection[tuple[str, str]]) -> None:
        self._known = [one for one in known if one.identified]
        self._connected = connected

    def at(self, one: Sighting) -> DeviceFacts | None:
        """The phone that was at this address before and may be this one."""
        server, address, _ = one.connection
        for facts in self._known:
            if (facts.adb_server, facts.transport_serial) == (server, address) and (
                one.reported in (facts.serial, facts.reported_serial)
            ):
                return facts
        return None

    def has_absent(self, serial: str) -> bool:
        """Whether a phone that is not connected now reports this serial."""
        return any(
            facts.reported_serial == serial and (facts.adb_server, facts.transport_serial) not in self._connected
            for facts in self._known
        )

    def has_elsewhere(self, name: str, server: str) -> bool:
        """Whether a phone of this name is at another server."""
        return any(facts.serial == name and facts.adb_server != server for facts in self._known)


def _claim(one: Sighting, record: _Record) -> tuple[str, Right]:
    serial, before = usable_serial(one.reported), record.at(one)
    if serial is not None and one.marked:
        return serial, Right.MARKED
    if before is not None:
        return before.serial, Right.ON_RECORD
    server, address, _ = one.connection
    if serial is not None and not record.has_absent(serial):
        return serial, Right.FIRST
    name = address_name(address)
    return (f"{name}@{server}" if record.has_elsewhere(name, server) else name), Right.FIRST


def _settle(
    name: str,
    claimants: Sequence[tuple[Right, Sighting]],
    are_one: AreOne,
    found: dict[Connection, Name],
    losers: list[Sighting],
) -> None:
    """Give a name to the phone with the best right to it, over each of its connections."""
    best = max(right for right, _ in claimants)
    holders = [one for right, one in claimants if right == best]
    in_use = [one for one in holders if one.named == name] or holders
    first = in_use[0]
    relation = {one.connection: one is first or are_one(first.connection, one.connection) for _, one in claimants}
    is_contested = any(relation[one.connection] is False for one in in_use)
    is_open = first.named != name and any(relation[one.connection] is None for one in in_use)
    for _, one in claimants:
        is_this = relation[one.connection]
        if is_contested or is_this is False:
            losers.append(one)
        else:
            found[one.connection] = _named(one, name, set_aside=is_open or is_this is None)


def _name_by_address(
    losers: Sequence[Sighting], record: _Record, are_one: AreOne, found: dict[Connection, Name]
) -> None:
    """Call phones by their addresses; several connections of one phone by that of the first."""
    taken = {one.name for one in found.values()}
    wanted = [address_name(one.connection[1]) for one in losers]
    for place, one in enumerate(losers):
        relations = {
            other.connection: are_one(other.connection, one.connection)
            for other in losers[:place]
            if other.reported == one.reported
        }
        same = next((connection for connection, is_this in relations.items() if is_this), None)
        if same is not None:
            found[one.connection] = found[same]
            continue
        name, server = wanted[place], one.connection[0]
        is_plain = wanted.count(name) == 1 and name not in taken and not record.has_elsewhere(name, server)
        is_open = any(is_this is None for is_this in relations.values())
        found[one.connection] = _named(one, name if is_plain else f"{name}@{server}", set_aside=is_open)


def _named(one: Sighting, name: str, *, set_aside: bool) -> Name:
    serial = usable_serial(one.reported)
    return Name(name, set_aside, shares=None if serial in (None, name) else serial)


def hints(found: Mapping[Connection, Name]) -> dict[Connection, str]:
    """What a person should know about the names that are addresses although the phone reports a serial.

    Args:
        found: Of all connected phones.
    """
    return {
        connection: f"it reports the serial number {one.shares}, which another phone has as well: it is called by its address, "
        f"{one.name}"
        for connection, one in found.items()
        if one.shares is not None
    }
