"""What a statement raises is retried, halved or blamed by what it is."""

from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from contracts.database import ConnectionLost
from workers.store.transactions import bisected


class Unforeseen(Exception):
    """Of a class that no code knows."""


CLOSED = RuntimeError("unable to perform operation on <TCPTransport closed=True reading=False>; the handler is closed")


class Writer:
    """Stands for a transaction: raises for batches with the bad row, as often as it is told."""

    def __init__(self, error: Exception, *, times: int) -> None:
        self._error = error
        self.left = times
        self.written: list[int] = []
        self.blamed: list[int] = []
        self.tries = 0

    async def attempt(self, batch: Sequence[int]) -> Sequence[int]:
        self.tries += 1
        if 17 in batch and self.left:
            self.left -= 1
            raise self._error
        self.written += batch
        return batch

    async def alone(self, one: int, error: Exception) -> Sequence[int]:
        assert error is self._error
        self.blamed.append(one)
        return []


@pytest.mark.parametrize(
    "error",
    [ConnectionLost("gone"), CLOSED, asyncpg.DeadlockDetectedError(""), asyncpg.UndefinedColumnError(""), Unforeseen()],
)
async def test_what_may_pass_is_tried_again_and_nobody_is_blamed(error: Exception) -> None:
    writer = Writer(error, times=1)

    written = await bisected(range(40), writer.attempt, writer.alone, pool="test")

    assert written == list(range(40))
    assert (writer.tries, writer.blamed) == (2, [])


@pytest.mark.parametrize(
    "error",
    [
        Unforeseen(),
        asyncpg.RaiseError("a trigger's"),
        asyncpg.CharacterNotInRepertoireError(""),
        asyncpg.exceptions._base.DataError("value out of int32 range"),  # noqa: SLF001  # asyncpg's own, before it sends anything
    ],
)
async def test_a_row_that_fails_for_good_is_blamed_alone(error: Exception) -> None:
    writer = Writer(error, times=1000)

    written = await bisected(range(40), writer.attempt, writer.alone, pool="test")

    assert written == [one for one in range(40) if one != 17]
    assert writer.blamed == [17]


async def test_a_missing_partition_is_no_rows_fault() -> None:
    error: Any = asyncpg.CheckViolationError('no partition of relation "commands" found for row')
    writer = Writer(error, times=3)

    written = await bisected([17, 18], writer.attempt, writer.alone, pool="test")

    assert written == [17, 18]
    assert writer.blamed == []


async def test_errors_that_differ_each_time_blame_nobody_yet() -> None:
    kinds = [type(f"Unforeseen{number}", (Exception,), {}) for number in range(10)]
    errors = iter([kind() for kind in kinds])
    tried = 0

    async def attempt(batch: Sequence[int]) -> Sequence[int]:
        nonlocal tried
        tried += 1
        error = next(errors, None)
        if error is not None:
            raise error
        return batch

    async def alone(one: int, error: Exception) -> Sequence[int]:
        pytest.fail(f"{one} was blamed for {error!r}")

    assert await bisected([17], attempt, alone, pool="test") == [17]
    assert tried == 11
