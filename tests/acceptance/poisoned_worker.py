"""A worker of the AI pool whose handler is killed by some questions: `python -m tests.acceptance.poisoned_worker`."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from contracts.settings import Settings, settings
from workers.handler import Command, Handler, Outcome
from workers.pools.serve import POOLS, serve

POISON = "poison"
_ANSWER_SECONDS = 0.1


async def answer(command: Command[Any]) -> Outcome:
    """Answer, but not before poison has had its time to act."""
    if command.payload.prompt == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(_ANSWER_SECONDS)
    return Outcome({"text": "fine"})


@asynccontextmanager
async def _open(_: Settings, __: Any) -> AsyncIterator[Handler]:
    yield answer


async def _run() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await serve(replace(POOLS["ai"], handler=_open), settings(), stopping)


if __name__ == "__main__":
    asyncio.run(_run())
