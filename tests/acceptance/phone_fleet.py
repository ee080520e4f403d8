"""A row of simulated phones behind a real adb server, and what their logs say about who did what when."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from typing import Any

from ops.simulators.phone.control_port import control_phone
from ops.simulators.phone.effects import read_effects
from ops.stack.layout import PHONE_HOST
from tests.acceptance.records import until
from tests.acceptance.stage import Stage, free_port
from workers.android.adb.server import AdbFailure, AdbServer


@dataclass(frozen=True, slots=True)
class PhoneFleet:
    """Phones in one process."""

    serials: tuple[str, ...]
    addresses: dict[str, str]
    """What the adb server calls each."""
    folder: Path
    """One log of effects for each."""
    control_port: int

    def effects(self, serial: str, *, actions: Iterable[str] = ("tap",)) -> list[dict[str, Any]]:
        """What has happened on a phone so far, in order."""
        wanted = set(actions)
        return [one for one in read_effects(self.folder / f"{serial}.jsonl") if one["action"] in wanted]

    def taps(self, serial: str) -> list[int]:
        """The x of each tap on a phone, in order."""
        return [int(one["argv"][-2]) for one in self.effects(serial)]

    async def change(self, serial: str, **behaviour: Any) -> None:
        """Make a phone misbehave, or behave."""
        await control_phone(self.control_port, phone=serial, **behaviour)


def overlaps(effects: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of effects of one phone of which the later began before the earlier was over."""
    return [
        (first, second)
        for first, second in pairwise(effects)
        if second["monotonic"] < first.get("ended_monotonic", first["monotonic"])
    ]


@asynccontextmanager
async def phone_fleet(stage: Stage, count: int, *, server: str | None = None) -> AsyncIterator[PhoneFleet]:
    """Run phones of their own serials, connected to an adb server.

    Args:
        stage: Where.
        count: How many.
        server: host:port of the adb server; None takes the test run's.
    """
    port, control, folder = free_port(), free_port(), stage.folder / f"effects-{token_hex(4)}"
    first = f"T{token_hex(4).upper()}X001"
    arguments = ("--listen", f"{PHONE_HOST}:{port}", "--count", str(count), "--serial", first)
    child = stage.start(
        "phones",
        "ops.simulators.phone",
        *arguments,
        "--effects-folder",
        str(folder),
        "--control",
        f"127.0.0.1:{control}",
    )
    await stage.line_of(child, "control on ")
    words = [
        line.split() for line in child.spec.log_file.read_text(encoding="utf-8").splitlines() if " listens on " in line
    ]
    addresses = {line[line.index("listens") - 1]: line[line.index("on") + 1].rstrip(";") for line in words}
    assert len(addresses) == count
    host, _, server_port = (server or stage.services.adb_server).rpartition(":")
    adb = AdbServer(host, int(server_port))
    for address in addresses.values():
        await adb.connect(address, timeout_seconds=30)

    async def ready() -> bool:
        listed = {phone.serial for phone in await adb.phones(timeout_seconds=30) if phone.state == "device"}
        return listed >= set(addresses.values())

    await until("the phones are ready", ready)
    try:
        yield PhoneFleet(tuple(addresses), addresses, folder, control)
    finally:
        for address in addresses.values():
            with suppress(AdbFailure):  # it may have been forgotten already
                await adb.disconnect(address, timeout_seconds=30)


async def all_consumed(stage: Stage, serials: Sequence[str]) -> bool:
    """Whether each of these phones is ready, and its queue consumed by the worker that holds it."""
    rows = await stage.records.rows(
        "select d.serial from devices d join device_leases l using (serial)"
        " where d.serial = any ($1::text[]) and d.queue_depth is not null and d.state = 'device'",
        list(serials),
    )
    return len(rows) == len(serials)


async def holders(stage: Stage, serials: Sequence[str], *, lease_seconds: float = 1.5) -> dict[str, list[str]]:
    """Which of these phones each Android worker that lives holds, by its incarnation."""
    rows = await stage.records.rows(
        "select w.incarnation::text as holder, l.serial from workers w"
        " left join device_leases l on l.holder = w.incarnation and l.serial = any ($1::text[])"
        " where w.pool = 'android' and w.heartbeat_at > clock_timestamp() - make_interval(secs => $2)",
        list(serials),
        lease_seconds,
    )
    held: dict[str, list[str]] = {row["holder"]: [] for row in rows}
    for row in rows:
        if row["serial"] is not None:
            held[row["holder"]].append(row["serial"])
    return held
