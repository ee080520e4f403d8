"""What is known of a phone: which connection leads to it, and how it was when it was last seen."""

from dataclasses import dataclass
from datetime import datetime

from workers.android.adb import DEFAULT_PORT, AdbServer

_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Transport:
    """One connection from an adb server to a phone."""

    server: AdbServer
    serial: str
    """What the adb server calls it."""
    id: str
    """Another one each time it is connected."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A phone as it was last seen."""

    serial: str
    """`ro.serialno`: the same phone by cable and by network is one phone. The transport's name until it was ready once."""
    adb_server: str
    """host:port."""
    transport_serial: str
    """What the adb server calls it."""
    state: str
    """`device` is ready; `unresponsive` is connected but answers no command; others are adb's own words."""
    hint: str | None
    """What a person can do about it, in plain words; None when it is ready."""
    model: str | None
    android_version: str | None
    battery_percent: int | None
    """0 to 100."""
    screen: str | None
    """Size in pixels and whether it is on: `1080x2400 on`."""
    seen_at: datetime
    """When its adb server last listed it."""

    @property
    def identified(self) -> bool:
        """Whether it has said who it is, so that `serial` is its own name."""
        return self.model is not None or self.android_version is not None


def parse_servers(value: str) -> list[AdbServer]:
    """The adb servers named by `ISH_ADB_SERVERS`.

    Args:
        value: `host:port` or `host`, comma-separated; empty names none.

    Raises:
        ValueError: A part is not an address.
    """
    servers = []
    for address in filter(None, (part.strip() for part in value.split(","))):
        host, colon, port = address.rpartition(":")
        if not colon:
            host, port = address, str(DEFAULT_PORT)
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
            raise ValueError(f"ISH_ADB_SERVERS: {address!r} is not host:port")
        servers.append(AdbServer(host, int(port)))
    return servers
