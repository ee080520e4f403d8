"""Runs a process with its ticks a hundred times as fast: `python -m tests.acceptance.hurried FILE EVERY MODULE …`.

Every sleep, and every wait with a time-out, is a hundredth as long; deadlines (`asyncio.timeout`) are as they were. At each
multiple of EVERY ticks one JSON line is added to FILE: how many ticks there have been, and how many objects of each type.
"""

import asyncio
import gc
import json
import runpy
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

_HURRY = 100


def main() -> None:
    """Hurry, then become the process asked for."""
    file, every, module, *arguments = sys.argv[1:]
    _hurry(Path(file), int(every))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _hurry(file: Path, every: int) -> None:
    ticks = count(1)
    sleep: Callable[..., Awaitable[Any]] = asyncio.sleep
    wait: Callable[..., Awaitable[Any]] = asyncio.wait

    def tick() -> None:
        number = next(ticks)
        if number % every == 0:
            _report(file, number)

    async def hurried_sleep(delay: float, result: Any = None) -> Any:
        tick()
        return await sleep(delay / _HURRY, result)

    async def hurried_wait(
        fs: Iterable[Any],
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # as asyncio.wait has it
        return_when: str = asyncio.ALL_COMPLETED,
    ) -> Any:
        tick()
        return await wait(fs, timeout=timeout and timeout / _HURRY, return_when=return_when)

    asyncio.sleep = hurried_sleep
    asyncio.wait = hurried_wait


def _report(file: Path, ticks: int) -> None:
    for _ in range(3):  # what a finalizer lets go of may hold more
        gc.collect()
    objects = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    line = json.dumps({"ticks": ticks, "objects": objects}) + "\n"
    with file.open("ab", buffering=0) as report:  # in one piece: a buffer would show its reader a part of a line
        report.write(line.encode())


if __name__ == "__main__":
    main()
