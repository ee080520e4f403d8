"""Keeps the background parts of a process at work: one that fails is logged, counted and started over, after a back-off.

Every loop that serves many commands runs under `restarting`, in workers and in gateways alike: a bug, or an exception
that a library has never raised before, costs a moment of one part and not the process. A part that keeps failing for
longer than the watchdog allows ends the process, so that whoever supervises it begins with a new one.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from contracts.logs import get_logger
from contracts.metrics import FAULTS, RESTARTS

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 5.0
_SERVED_SECONDS = 10.0
"""A part that ran for so long has served: its next failure is the first of a new episode."""

_FRAMES = 6


class PartGone(Exception):
    """A part of this process failed again and again, for longer than the watchdog allows."""


async def restarting(
    loop_name: str,
    work: Callable[[], Awaitable[None]],
    *,
    give_up_seconds: float | None = None,
    first_delay_seconds: float = _FIRST_DELAY_SECONDS,
) -> None:
    """Run a part until it is cancelled or returns; when it fails, log it, count it and start it over.

    Args:
        loop_name: The part, for the log and the metric; one of a fixed set of names.
        work: Runs the part from its beginning.
        give_up_seconds: How long it may fail without having served in between; None for ever.
        first_delay_seconds: Wait before it is started over for the first time; it doubles up to five seconds.

    Raises:
        PartGone: It failed for longer than `give_up_seconds`.
    """
    loop = asyncio.get_running_loop()
    delay_seconds, failing_since = first_delay_seconds, None
    while True:
        started_at = loop.time()
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # this is where a part's failure ends, whatever it is
            failure: BaseException = error
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            failure = error
        else:
            return
        now = loop.time()
        if failing_since is None or now - started_at >= _SERVED_SECONDS:
            delay_seconds, failing_since = first_delay_seconds, now
        RESTARTS.labels(loop_name).inc()
        get_logger(loop=loop_name).error(
            "loop_restarted", error=shown(failure), at=place(failure), in_seconds=round(delay_seconds, 2)
        )
        if give_up_seconds is not None and now - failing_since > give_up_seconds:
            raise PartGone(f"{loop_name} has failed for {now - failing_since:.0f} s: {shown(failure)}") from failure
        await asyncio.sleep(delay_seconds)
        delay_seconds = min(delay_seconds * 2, _LONGEST_DELAY_SECONDS)


def was_cancelled() -> bool:
    """Whether somebody cancelled the current task.

    A library may end a wait with a CancelledError of its own, as aiormq does when a channel closes: that is a failure, and
    must not be taken for a request to stop.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def tell_fault(part: str, error: BaseException, **facts: object) -> None:
    """Log and count an error that nobody foresaw, and that was kept to the command or task that it struck.

    Args:
        part: Where it happened; one of a fixed set of names.
        error: What was raised.
        facts: More fields for the log.
    """
    FAULTS.labels(part).inc()
    get_logger(part=part).error("fault_contained", error=shown(error), at=place(error), **facts)


def shown(error: BaseException) -> str:
    """An error for the log: drivers quote the values that they complain of, and what people wrote is never logged.

    Args:
        error: What was raised.
    """
    return type(error).__name__ if isinstance(error, ValueError) else repr(error)


def place(error: BaseException) -> str:
    """Where an error was raised, innermost first; a traceback would print what `shown` leaves out.

    Args:
        error: What was raised.
    """
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
