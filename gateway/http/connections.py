"""Which connections are open, how many and for how long: the bounds that keep slow or greedy clients from starving others.

A connection is in one of these states; only the first two have a deadline, and only they give way to others:

    reading     some of a request has come, or nothing since the connection was opened   -> 408 at its deadline
    idle        between two requests                                                     -> closed after the keep-alive
    answering   a request is complete, its answer is not: waits and event streams stay as long as they like
    stalled     answering, and the client does not read what it is sent                  -> cut
    refused     the answer has been written; what still comes is thrown away, then       -> cut
"""

import asyncio
import resource
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from contracts.metrics import HTTP_CONNECTIONS_REFUSED
from gateway.http.problems import Problem, ProblemType

_TICK_SECONDS = 0.5
_LATE_SECONDS = 2.0
_SPARE_DESCRIPTORS = 200
"""Kept for the connections to RabbitMQ, PostgreSQL and Redis, and for files."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a client may take."""

    connections: int = 4000
    connections_per_address: int = 2000
    unfinished: int = 256
    """Requests that have begun and not all come; above it the oldest give way."""
    head_seconds: float = 10.0
    """For the request line and the header together, from their first byte."""
    body_seconds: float = 20.0
    """For the body, and one more second for each `body_rate_bytes` of it."""
    body_rate_bytes: int = 1024
    idle_seconds: float = 75.0
    """Longer than the minute for which proxies usually keep theirs, so that a proxy never meets a closing connection."""
    stalled_seconds: float = 60.0
    linger_seconds: float = 2.0
    young_seconds: float = 1.0
    """An unfinished request younger than this does not give way: it may wait for nobody but us."""


class Connection(Protocol):
    """What the bounds need to know of a connection, and can do to it."""

    deadline: float
    """When its request must have come; the loop's time."""
    started_at: float
    """When its request began to come."""

    @property
    def address(self) -> str:
        """The peer's."""

    @property
    def waits_for_us(self) -> bool:
        """Whether more of the request could come, were it not for this side."""

    def time_out(self) -> None:
        """Answer that the request did not come in time, and close."""

    def close(self) -> None:
        """Close it, with nothing left to say."""

    def cut(self) -> None:
        """Drop it at once."""


class Connections:
    """The open connections of one gateway.

    Args:
        bounds: What is allowed.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._open: set[Connection] = set()
        self._addresses: Counter[str] = Counter()
        self._reading: dict[Connection, None] = {}
        self._idle: dict[Connection, float] = {}
        self._stalled: dict[Connection, float] = {}
        self._refused: dict[Connection, float] = {}
        self._swept_at = 0.0

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def admit(self, one: Connection, now: float) -> Problem | None:
        """Take a new connection in; another may have to go for it.

        Args:
            one: The connection.
            now: The loop's time.

        Returns:
            None, or why it cannot stay.
        """
        crowded = self._addresses[one.address] >= self.bounds.connections_per_address
        if (crowded or len(self._open) >= self.bounds.connections) and not self._make_room(
            now, one.address if crowded else None
        ):
            HTTP_CONNECTIONS_REFUSED.labels("address" if crowded else "all").inc()
            whose = "Your address has" if crowded else "There are"
            return Problem(
                ProblemType.TOO_MANY_CONNECTIONS, f"{whose} as many connections open as are allowed; close some."
            )
        self._open.add(one)
        self._addresses[one.address] += 1
        self._bound_reading(one, now)
        return None

    def remove(self, one: Connection) -> None:
        """It is closed.

        Args:
            one: The connection.
        """
        if one in self._open:
            self._open.discard(one)
            self._addresses[one.address] -= 1
            if not self._addresses[one.address]:
                del self._addresses[one.address]
        self._reading.pop(one, None)
        self._idle.pop(one, None)
        self._stalled.pop(one, None)
        self._refused.pop(one, None)

    def reading(self, one: Connection, now: float) -> None:
        """A part of a request has come, and more must follow before its deadline.

        Args:
            one: The connection.
            now: The loop's time.
        """
        self._idle.pop(one, None)
        self._bound_reading(one, now)

    def answering(self, one: Connection) -> None:
        """The whole request has come.

        Args:
            one: The connection.
        """
        self._idle.pop(one, None)
        self._reading.pop(one, None)

    def idle(self, one: Connection) -> None:
        """Its request is answered, and no other has begun; counted from the sweep before.

        Args:
            one: The connection.
        """
        self._reading.pop(one, None)
        self._idle[one] = self._swept_at

    def stalled(self, one: Connection, now: float | None) -> None:
        """Its client does not read what it is sent, or reads again.

        Args:
            one: The connection.
            now: The loop's time; None when it reads again.
        """
        if now is None:
            self._stalled.pop(one, None)
        else:
            self._stalled[one] = now

    def refused(self, one: Connection, now: float) -> None:
        """It has had its last answer.

        Args:
            one: The connection.
            now: The loop's time.
        """
        self._idle.pop(one, None)
        self._reading.pop(one, None)
        if len(self._refused) >= self.bounds.unfinished:
            oldest = next(iter(self._refused))
            del self._refused[oldest]
            oldest.cut()
        self._refused[one] = now

    def sweep(self, now: float) -> None:
        """End what is over its time.

        Args:
            now: The loop's time.
        """
        self._swept_at = now
        for one in [one for one in self._reading if one.deadline <= now]:
            if one.waits_for_us:
                one.deadline = now + self.bounds.body_seconds
            else:
                self._time_out(one)
        for one in _older(self._idle, now - self.bounds.idle_seconds):
            del self._idle[one]
            one.close()
        for one in _older(self._stalled, now - self.bounds.stalled_seconds):
            one.cut()
        for one in _older(self._refused, now - self.bounds.linger_seconds):
            one.cut()

    async def run(self) -> None:
        """Sweep until cancelled."""
        now = asyncio.get_running_loop().time
        self._swept_at = now()
        while True:
            slept_at = now()
            await asyncio.sleep(_TICK_SECONDS)
            if now() - slept_at < _LATE_SECONDS:
                # after a sleep of the whole process what has come meanwhile is read first
                self.sweep(now())
            else:
                self._swept_at = now()

    def _bound_reading(self, one: Connection, now: float) -> None:
        self._reading[one] = None
        if len(self._reading) > self.bounds.unfinished:
            oldest = next(iter(self._reading))
            if oldest.started_at < now - self.bounds.young_seconds:
                self._time_out(oldest)

    def _make_room(self, now: float, address: str | None) -> bool:
        for one in self._idle:
            if address in {None, one.address}:
                del self._idle[one]
                one.cut()
                return True
        for one in self._reading:
            if address in {None, one.address} and one.started_at < now - self.bounds.young_seconds:
                self._time_out(one)
                return True
        return False

    def _time_out(self, one: Connection) -> None:
        self._reading.pop(one, None)
        one.time_out()


def _older(since: dict[Connection, float], limit: float) -> list[Connection]:
    """The first entries, up to the first that is younger; entries are in the order of their times."""
    found: list[Connection] = []
    for one, at in since.items():
        if at > limit:
            break
        found.append(one)
    return found


def descriptors() -> int:
    """How many connections this process has file descriptors for, after it has asked for all that it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(64, (65536 if soft == resource.RLIM_INFINITY else soft) - _SPARE_DESCRIPTORS)
