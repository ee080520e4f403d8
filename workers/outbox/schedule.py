"""Runs one job of the outbox worker again and again: a failing dependency is told once per episode and waited for."""

import asyncio
from collections.abc import Awaitable, Callable

import aiormq
import structlog

from contracts.amqp.broker import BrokerAway
from contracts.amqp.publisher import PublishFailed
from contracts.database import is_passing
from contracts.logs import get_logger
from contracts.metrics import RESTARTS
from contracts.restarting import was_cancelled
from contracts.service_errors import postgres_in_words

_BACKOFF_MAX_SECONDS = 5.0
_BACKOFF_RARE_SECONDS = 60.0
"""For jobs that run rarely anyway."""
_BROKER_AWAY = (BrokerAway, PublishFailed, aiormq.AMQPError, ConnectionError)


async def repeat(
    job: str, work: Callable[[], Awaitable[bool]], *, every_seconds: float, backoff_seconds: float = 1.0
) -> None:
    """Do a job's rounds until cancelled; no error of a round ends it.

    Args:
        job: Its name, for the logs.
        work: One round; True when there is more to do at once.
        every_seconds: Pause between rounds.
        backoff_seconds: Pause after a first error; it doubles with each that follows.
    """
    log = get_logger(job=job)
    failures = 0
    while True:
        try:
            delay_seconds = 0.0 if await work() else every_seconds
            if failures:
                log.info("outbox_job_recovered", failures=failures)
            failures = 0
        except Exception as error:  # noqa: BLE001  # one job's bug or a row it cannot digest must not stop the others
            failure: BaseException = error
        except asyncio.CancelledError as error:
            if was_cancelled():
                raise
            failure = error
        else:
            await asyncio.sleep(delay_seconds)
            continue
        RESTARTS.labels(job).inc()
        if not failures:
            _tell(log, failure)
        failures += 1
        longest = _BACKOFF_RARE_SECONDS if every_seconds > _BACKOFF_RARE_SECONDS else _BACKOFF_MAX_SECONDS
        await asyncio.sleep(min(backoff_seconds * 2.0 ** min(failures - 1, 10), longest))


def _tell(log: structlog.stdlib.BoundLogger, error: BaseException) -> None:
    if isinstance(error, _BROKER_AWAY):
        log.warning("broker_unreachable", error=str(error))
    elif is_passing(error):
        log.warning("postgres_unreachable", error=postgres_in_words(error))
    else:
        log.error("outbox_job_failed", error=repr(error), exc_info=error)
