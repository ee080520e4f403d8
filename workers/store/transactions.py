"""Runs statements until PostgreSQL answers, and keeps a fault to the row that caused it.

What a statement raises is one of four things, and each has its own answer:

| the error | what is done |
| --- | --- |
| PostgreSQL is away, full or busy, or the connection broke | the same batch again, for as long as it takes |
| the schema does not fit: a right, a column or a partition is missing | the same, told as an error |
| a value cannot be stored | the batch is halved until the row stands alone; that one fails |
| anything else | the same batch a few times more, then halved as well |
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from contracts.database import is_data_error, is_of_schema, is_passing
from contracts.logs import get_logger
from contracts.metrics import BISECTIONS
from contracts.restarting import place, shown, tell_fault, was_cancelled
from contracts.service_errors import postgres_in_words

_FIRST_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 1.0
_TRIES = 4
"""Of one row, or of what is no batch, with errors that nobody foresaw, before it is blamed."""
_TRIES_OF_BATCH = 2
_MOST_TRIES = 20
"""Of anything, with errors that differ each time."""

_log = get_logger()
_T = TypeVar("_T")
_Row = TypeVar("_Row")
_Written = TypeVar("_Written")


async def until_answered(attempt: Callable[[], Awaitable[_T]], *, tries: int = _TRIES) -> _T:
    """Try until PostgreSQL answers; what is held stays unacked meanwhile.

    A commit whose answer was lost is resolved by the next try: its rows are found written, and not written again.

    Args:
        attempt: One or more statements, or a transaction; it may be called again after any failure.
        tries: That end in the same error, of a class that nobody foresaw and at the same place, before it is raised.

    Raises:
        Exception: A value cannot be stored, or an unforeseen error came that often.
    """
    delay_seconds, told = _FIRST_DELAY_SECONDS, False
    met: Counter[tuple[type[BaseException], str]] = Counter()
    while True:
        try:
            return await attempt()
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            if _is_stubborn(met, error, tries):
                raise RuntimeError("a library ended the statement by a cancellation") from error
            tell_fault("database", error)
        except Exception as error:
            if is_passing(error) or is_of_schema(error):
                if not told:
                    _tell_away(error)
                told = True
            else:
                if is_data_error(error) or _is_stubborn(met, error, tries):
                    raise
                tell_fault("database", error)
        await asyncio.sleep(delay_seconds)
        delay_seconds = min(delay_seconds * 2, _LONGEST_DELAY_SECONDS)


def _is_stubborn(met: Counter[tuple[type[BaseException], str]], error: BaseException, tries: int) -> bool:
    """Whether an error came so often that waiting is no help: what a row causes is the same each time."""
    kind = type(error), place(error)
    met[kind] += 1
    return met[kind] >= tries or met.total() >= _MOST_TRIES


def _tell_away(error: Exception) -> None:
    if is_of_schema(error):
        _log.error("postgres_unusable", error=shown(error))
    else:
        _log.warning("postgres_unreachable", error=postgres_in_words(error))


async def bisected(
    batch: Sequence[_Row],
    attempt: Callable[[Sequence[_Row]], Awaitable[Sequence[_Written]]],
    alone: Callable[[_Row, Exception], Awaitable[Sequence[_Written]]],
    *,
    pool: str,
) -> list[_Written]:
    """Write a batch; when it cannot be written, halve it until the row that is to blame stands alone.

    Args:
        batch: What to write; nothing is done for an empty one.
        attempt: Writes rows, in one transaction or statement, and returns what came of it.
        alone: What to do with a row that cannot be written; returns what came of that.
        pool: Name of the pool, for metrics.

    Returns:
        What came of all of them.
    """
    if not batch:
        return []
    try:
        return list(await until_answered(lambda: attempt(batch), tries=_TRIES if len(batch) == 1 else _TRIES_OF_BATCH))
    except Exception as error:  # noqa: BLE001  # a row is to blame, whatever its fault raised: it is found
        if len(batch) == 1:
            return list(await alone(batch[0], error))
        _log.warning("batch_bisected", size=len(batch), error=shown(error), pool=pool)
        BISECTIONS.labels(pool).inc()
        half = len(batch) // 2
        first = await bisected(batch[:half], attempt, alone, pool=pool)
        return first + await bisected(batch[half:], attempt, alone, pool=pool)
