"""What is known of a phone: which connection leads to it, and how it was when it was last seen."""

from dataclasses import dataclass
from datetime import datetime

from contracts.addresses import ADB_PORT, read_addresses
from workers.android.adb.server import AdbServer


@dataclass(frozen=True, slots=True)
class Transport:
    """One connection from an adb server to a phone."""

    server: AdbServer
    """Leads to this connection only, when a watcher gave it."""
    serial: str
    """What the adb server calls it."""
    id: str
    """Another one each time it is connected."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A phone as it was last seen."""

    serial: str
    """What commands call it: see `workers.android.monitor.identity`. The transport's name until it was ready once."""
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
    reported_serial: str | None = None
    """Its `ro.serialno`, which other phones may have as well; None until it has said it."""

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
    return [AdbServer(host, port) for host, port in read_addresses(value, default_port=ADB_PORT)]
