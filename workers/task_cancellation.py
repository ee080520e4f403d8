"""Cancels tasks until they have ended: on Python 3.11 a cancellation that meets a time-out may be swallowed."""

import asyncio
from collections.abc import Iterable
from typing import Any

_ASK_AGAIN_SECONDS = 1.0


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel these tasks, and again every second, until all have ended.

    Args:
        tasks: In the order in which they are asked to end.
    """
    left = list(tasks)
    while left:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_ASK_AGAIN_SECONDS)
        left = [task for task in left if not task.done()]
