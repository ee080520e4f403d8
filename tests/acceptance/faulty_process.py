"""A process of the product in which each call of a service fails once: `python -m tests.acceptance.faulty_process …`.

    faulty_process WHEN VISIT LOG MODULE [ARGUMENT…]

A call site is a line of the product, with those that lead to it, that calls PostgreSQL, Redis, RabbitMQ or adb, found as the process runs: a statement
that is added tomorrow is a site tomorrow. At its VISIT-th visit it raises an exception of a class that no code knows,
WHEN `before` the call is made or `after` it was (its answer is lost); from then on it works. A site that fails is written
to LOG. With WHEN `only=SITE` no other site fails.
"""

import asyncio
import functools
import runpy
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aio_pika
import aiormq.channel
import asyncpg
import asyncpg.transaction
import redis.asyncio.client

from contracts.amqp import publisher
from workers.amqp import channel

ROOT = Path(__file__).parents[2]
_PRODUCT = tuple(f"{ROOT}/{package}/" for package in ("contracts", "gateway", "workers"))
_ADB = f"{ROOT}/workers/android/"
_OWN = (f"{ROOT}/workers/channel.py",)
"""What stands for the service itself: the site is whoever called that."""
_LINES = 3
"""Helpers that everybody calls, such as `acquired`, are told apart by who calls them."""


class Unforeseen(Exception):
    """Of a class that no code of the product knows."""


class Faults:
    """Which sites are to fail, and which have failed.

    Args:
        when: `before`, `after`, or either with `only=SITE`.
        visit: At which visit; first is 1.
        log: Gets a line for each fault.
    """

    def __init__(self, when: str, visit: int, log: Path) -> None:
        self._when, _, self._only = when.partition("only=")
        self._visit = visit
        self._log = log
        self._visits: Counter[str] = Counter()

    @property
    def after(self) -> bool:
        """Whether calls are made, and their answers lost."""
        return self._when.startswith("after")

    def due(self, operation: str, *, within: str = "") -> str | None:
        """The site of the call that is being made, if it is to fail now.

        Args:
            operation: What is called.
            within: Only sites in this folder.
        """
        site = _site(operation, within=within)
        if site is None or (self._only and site != self._only):
            return None
        self._visits[site] += 1
        return site if self._visits[site] == self._visit else None

    def fail(self, site: str) -> None:
        """Note a fault and raise it."""
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{site}\n")
        raise Unforeseen(site)


def _site(operation: str, *, within: str) -> str | None:
    """The innermost lines of the product that lead to a call; None when it is a library's own."""
    frame: Any = sys._getframe(2)  # noqa: SLF001  # the call stack has no other door
    lines: list[str] = []
    while frame is not None and len(lines) < _LINES:
        code = frame.f_code
        if code.co_filename.startswith(_PRODUCT) and not code.co_filename.startswith(_OWN):
            if not lines and not code.co_filename.startswith(within):
                return None
            lines.append(f"{code.co_filename.removeprefix(f'{ROOT}/')}:{frame.f_lineno} {code.co_qualname}")
        frame = frame.f_back
    return f"{operation} at {' < '.join(lines)}" if lines else None


def inject(faults: Faults) -> None:
    """Have every client of a service fail as `faults` says."""
    for name in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
        _wrap(asyncpg.Connection, name, faults)
    _wrap(asyncpg.Pool, "_acquire", faults, has_answer=False)  # lost, the connection itself would be
    for name in ("__aenter__", "__aexit__"):
        _wrap(asyncpg.transaction.Transaction, name, faults)
    _wrap(redis.asyncio.client.Redis, "execute_command", faults)
    _wrap(redis.asyncio.client.Pipeline, "execute", faults)
    for name in ("execute_command", "parse_response"):
        _wrap(redis.asyncio.client.PubSub, name, faults)
    calls = [name for name in vars(aiormq.channel.Channel) if name.startswith(("basic_", "queue_", "exchange_"))]
    for name in ("open", "confirm_delivery", *calls):
        _wrap(aiormq.channel.Channel, name, faults)
    _wrap(channel.ConsumeChannel, "send_acks", faults)
    _wrap_plain(publisher._ConfirmChannel, "send", faults)  # noqa: SLF001  # where every publish leaves
    _wrap(aio_pika, "connect", faults)
    _wrap(asyncio, "open_connection", faults, within=_ADB)
    for name in ("readexactly", "read"):
        _wrap(asyncio.StreamReader, name, faults, within=_ADB)
    _wrap(asyncio.StreamWriter, "drain", faults, within=_ADB)


def _wrap(owner: Any, name: str, faults: Faults, *, within: str = "", has_answer: bool = True) -> None:
    original: Callable[..., Any] = getattr(owner, name)
    operation = f"{getattr(owner, '__name__', '')}.{name}"

    @functools.wraps(original)
    async def wrapped(*given: Any, **named: Any) -> Any:
        site = faults.due(operation, within=within)
        if site is not None and not (faults.after and has_answer):
            faults.fail(site)
        answer = await original(*given, **named)
        if site is not None:
            faults.fail(site)
        return answer

    setattr(owner, name, wrapped)


def _wrap_plain(owner: Any, name: str, faults: Faults) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*given: Any, **named: Any) -> Any:
        site = faults.due(f"{owner.__name__}.{name}")
        if site is not None and not faults.after:
            faults.fail(site)
        answer = original(*given, **named)
        if site is not None:
            faults.fail(site)
        return answer

    setattr(owner, name, wrapped)


def _tell_tasks(*_: object) -> None:
    """Print what every task waits for."""
    for task in asyncio.all_tasks(asyncio.get_running_loop()):
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


def main() -> None:
    """Inject, then become the process; SIGUSR2 prints its tasks."""
    when, visit, log, module, *arguments = sys.argv[1:]
    signal.signal(signal.SIGUSR2, _tell_tasks)
    inject(Faults(when, int(visit), Path(log)))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
