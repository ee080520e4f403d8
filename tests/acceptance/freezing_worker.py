"""An Android worker that stops itself (SIGSTOP) at a seam when a test asks for it: `python -m tests.acceptance.freezing_worker`.

before_send    the lease was found sure, and the line is not sent yet
between_lines  the same, before the second line of a command
after_answer   the phone has answered, and nothing of that is on record yet
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.android.command import AndroidExecute
from contracts.settings import Settings, settings
from workers.android.handler import HeldPhone, RunOnPhone
from workers.android.monitor.devices import Transport
from workers.device_pool.leased_phone import LeasedServer
from workers.handler import Command, Outcome
from workers.pools.serve import POOLS, Opening, serve

FOLDER = "FREEZE_FOLDER"
"""Variable with the folder in which each file `request-*` asks one worker to stop at the seam that it names."""
SEAMS = ("before_send", "between_lines", "after_answer")


@dataclass
class Freezing:
    """A held phone whose user stops at the seam that is asked for."""

    phone: HeldPhone
    command: Command[AndroidExecute]
    folder: Path
    lines: int = field(default=0)

    @property
    def serial(self) -> str:
        return self.phone.serial

    @asynccontextmanager
    async def opened(self, *, patience_seconds: float) -> AsyncIterator[tuple[Transport, str | None]]:
        async with self.phone.opened(patience_seconds=patience_seconds) as (transport, fence):
            server = transport.server
            assert isinstance(server, LeasedServer)

            def checked() -> bool:
                sure = server.is_sure()
                self.lines += 1
                self._reach(SEAMS[min(self.lines, 2) - 1])
                return sure

            checking = LeasedServer(server.host, server.port, server.transport_id, checked)
            yield Transport(checking, transport.serial, transport.id), fence
            self._reach("after_answer")

    def answered(self) -> None:
        self.phone.answered()

    def unanswered(self) -> None:
        self.phone.unanswered()

    def refused(self) -> None:
        self.phone.refused()

    def _reach(self, seam: str) -> None:
        for request in self.folder.glob("request-*"):
            taken = self.folder / f"taken-{os.getpid()}"
            try:
                if request.read_text(encoding="utf-8") != seam:
                    continue
                request.rename(taken)
            except FileNotFoundError:
                continue  # another one has stopped for it
            mark = {"pid": os.getpid(), "serial": self.serial, "id": str(self.command.id), "seam": seam}
            taken.write_text(json.dumps(mark), encoding="utf-8")
            taken.rename(self.folder / f"frozen-{os.getpid()}")
            os.kill(os.getpid(), signal.SIGSTOP)
            return


@asynccontextmanager
async def _open(configuration: Settings, database: Any) -> AsyncIterator[RunOnPhone]:
    folder = Path(os.environ[FOLDER])
    async with POOLS["android"].handler(configuration, database) as run_on:

        async def freezing(phone: HeldPhone, command: Command[AndroidExecute]) -> Outcome:
            outcome: Outcome = await run_on(Freezing(phone, command, folder), command)
            return outcome

        yield freezing


async def _run() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    android = POOLS["android"]
    await serve(Opening(android.name, android.pools, _open, android.work), settings(), stopping)


if __name__ == "__main__":
    asyncio.run(_run())
