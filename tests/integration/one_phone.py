"""One simulated phone behind a real adb server, and actions run on it without a broker."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contracts.android.command import action_from
from contracts.errors import CommandError
from ops.simulators.phone.device import Device
from ops.simulators.phone.effects import read_effects
from ops.simulators.phone.lab import connected_phones
from workers.android.adb.server import AdbServer
from workers.android.monitor.devices import Transport
from workers.android.readings import Reading
from workers.android.runner import run_action
from workers.android.session import ScreenMemory
from workers.handler import StoredArtifact

PATIENCE_SECONDS = 120
NOTES = "com.ish.notes"

BOTH_ADBS = pytest.mark.parametrize("program", ["bundled", "distribution"], indirect=True, scope="module")
"""Runs a test with today's adb and with the distribution's: `pytestmark = BOTH_ADBS`."""


@dataclass
class OnePhone:
    """The phone, the way to it, and the owner's artifacts."""

    device: Device
    transport: Transport
    log: Path
    fence: str | None = None
    limit_bytes: int = 32 * 1024 * 1024
    screen: ScreenMemory = field(default_factory=ScreenMemory)
    artifacts: dict[str, bytes] = field(default_factory=dict)

    async def read(self, **fields: Any) -> Reading:
        """Run an action."""
        return await run_action(
            self.transport,
            action_from(fields),
            deadline=time.monotonic() + PATIENCE_SECONDS,
            fence=self.fence,
            artifact_limit_bytes=self.limit_bytes,
            fetch=self._fetch,
            screen=self.screen,
        )

    async def run(self, **fields: Any) -> dict[str, Any]:
        """What an action answers."""
        return (await self.read(**fields)).output

    async def failure(self, **fields: Any) -> CommandError:
        """Why an action fails."""
        with pytest.raises(CommandError) as caught:
            await self.read(**fields)
        return caught.value

    async def shell(self, line: str) -> str:
        """Run a line past the product's own rules."""
        output = await self.transport.server.shell(self.transport.serial, line, timeout_seconds=PATIENCE_SECONDS)
        return output.stdout.decode()

    def effects(self, *actions: str) -> list[dict[str, Any]]:
        """What was done to the phone; of these kinds only, if any are named."""
        return [effect for effect in read_effects(self.log) if not actions or effect["action"] in actions]

    @property
    def note(self) -> str:
        """What stands in the notes app."""
        return self.device.screen.typed.get(NOTES, "")

    async def _fetch(self, sha256: str) -> StoredArtifact | None:
        content = self.artifacts.get(sha256)
        return None if content is None else StoredArtifact.of(content)


@asynccontextmanager
async def one_phone(server: AdbServer, folder: Path) -> AsyncIterator[OnePhone]:
    """Run and connect a simulated phone while the block runs.

    Args:
        server: A running adb server.
        folder: For its log.
    """
    log = folder / "effects.jsonl"
    async with connected_phones([server], ["SIM1"], logs=[log]) as [phone]:
        listed = await server.phones(timeout_seconds=PATIENCE_SECONDS)
        [own] = [one for one in listed if one.serial == phone.address]  # the last test's may not be forgotten yet
        yield OnePhone(phone.device, Transport(server, own.serial, own.transport_id), log)
