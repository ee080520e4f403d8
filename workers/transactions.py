"""Runs transactions until PostgreSQL answers, and halves a batch until a row that it refuses stands alone."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from contracts.database import is_data_error, is_passing
from contracts.logs import get_logger
from contracts.metrics import BATCH_SIZE, BISECTIONS, COMMIT_DURATION
from workers.deliveries import Finished

_FIRST_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 1.0

_log = get_logger()
_T = TypeVar("_T")

Attempt = Callable[[Sequence[Finished]], Awaitable[list[Finished]]]
"""Writes a batch in one transaction; returns what was written (the others had been taken over)."""


async def until_answered(attempt: Callable[[], Awaitable[_T]]) -> _T:
    """Try until PostgreSQL answers; what is held stays unacked meanwhile.

    A commit whose answer was lost is resolved by the next try: its rows are found written, and not written again.

    Args:
        attempt: One or more statements, or a transaction; it may be called again after any failure that passes.

    Raises:
        Exception: One for which waiting is no help.
    """
    delay_seconds, told = _FIRST_DELAY_SECONDS, False
    while True:
        try:
            return await attempt()
        except Exception as error:
            if not is_passing(error):
                raise
            if not told:
                _log.warning("postgres_unreachable", error=repr(error))
                told = True
        await asyncio.sleep(delay_seconds)
        delay_seconds = min(delay_seconds * 2, _LONGEST_DELAY_SECONDS)


async def bisected(
    batch: Sequence[Finished],
    attempt: Attempt,
    alone: Callable[[Finished, Exception], Awaitable[list[Finished]]],
    *,
    pool: str,
) -> list[Finished]:
    """Write a batch in one transaction; when PostgreSQL refuses a row, halve until that row stands alone.

    Args:
        batch: What to write; nothing is done for an empty one.
        attempt: Writes it.
        alone: What to do with the refused row; returns what was written for it.
        pool: Name of the pool, for metrics.

    Returns:
        What was written.
    """
    if not batch:
        return []
    begun = time.monotonic()
    try:
        written = await until_answered(lambda: attempt(batch))
    except Exception as error:
        if not is_data_error(error):
            raise
        if len(batch) == 1:
            return await alone(batch[0], error)
        _log.warning("batch_bisected", size=len(batch), error=repr(error), pool=pool)
        BISECTIONS.labels(pool).inc()
        half = len(batch) // 2
        first = await bisected(batch[:half], attempt, alone, pool=pool)
        return first + await bisected(batch[half:], attempt, alone, pool=pool)
    BATCH_SIZE.labels(pool).observe(len(batch))
    COMMIT_DURATION.labels(pool).observe(time.monotonic() - begun)
    return written
