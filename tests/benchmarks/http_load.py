"""Sends HTTP/1.1 requests over kept-alive connections and reports what came back; runs as a process of its own.

One plan as JSON on standard input, one report as JSON on standard output: no key stands in argv, and the generator's
processor time is not the orchestrator's. It is lean on purpose (raw sockets, requests encoded once), since it shares the
machine with what it measures.
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import uvloop
from typing_extensions import override

_ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """One kind of request of a plan."""

    name: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""

    def encode(self, host: str) -> bytes:
        """The bytes of the request, the same each time.

        Args:
            host: Its Host header.
        """
        body = self.body.encode()
        lines = [f"{self.method} {self.path} HTTP/1.1", f"host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if body:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Plan:
    """A bounded load: it ends after `count` requests or `seconds`, whichever comes first."""

    host: str
    port: int
    connections: int
    requests: tuple[Request, ...]
    """Drawn evenly, in an order that is the same each time."""
    count: int
    seconds: float
    per_second: float | None = None
    """Open loop: requests are due at even distances, and time is counted from then. None sends as fast as answers come."""

    def encode(self) -> bytes:
        """The plan as the generator reads it."""
        return json.dumps(asdict(self)).encode()


class _Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one without saying so

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        place = head.find(b"\r\ncontent-length:")
        length = int(head[place + 17 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        status = int(head[9:12])
        self._buffer = self._buffer[end + 4 + length :]
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    async def ask(self, request: bytes) -> int:
        """Send one request.

        Args:
            request: Its bytes.

        Returns:
            The answer's status, once all of it has come.
        """
        assert self._transport is not None
        if self._transport.is_closing():
            raise ConnectionError("the server closed the connection")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await self._answer

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.close()


class _Load:
    """A plan under way."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        host = f"{plan.host}:{plan.port}"
        self._wires = [request.encode(host) for request in plan.requests]
        self._seconds: list[list[float]] = [[] for _ in plan.requests]
        self._statuses: list[dict[int, int]] = [{} for _ in plan.requests]
        self._sent = 0

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        opened = [
            (await loop.create_connection(_Connection, self._plan.host, self._plan.port))[1]
            for _ in range(self._plan.connections)
        ]
        cpu_before, started = time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, connection in enumerate(opened):
                group.create_task(self._user(number, connection, started))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_before
        for connection in opened:
            connection.close()
        return {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "requests": {
                request.name: {"statuses": self._statuses[kind], **latencies(self._seconds[kind])}
                for kind, request in enumerate(self._plan.requests)
            },
            "all": latencies([one for some in self._seconds for one in some]),
        }

    async def _user(self, number: int, connection: _Connection, started: float) -> None:
        """One connection's requests: every `connections`-th of the schedule when there is one, else as they come."""
        choose = random.Random(number)
        plan = self._plan
        turn = 0
        while self._sent < plan.count and time.perf_counter() - started < plan.seconds:
            due = time.perf_counter()
            if plan.per_second is not None:
                due = started + (number + turn * plan.connections) / plan.per_second
                if due - started >= plan.seconds:
                    return
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            turn += 1
            self._sent += 1
            kind = choose.randrange(len(self._wires))
            status = await connection.ask(self._wires[kind])
            self._seconds[kind].append(time.perf_counter() - due)
            self._statuses[kind][status] = self._statuses[kind].get(status, 0) + 1


def latencies(seconds: list[float]) -> dict[str, float]:
    """Count, mean and percentiles, in milliseconds.

    Args:
        seconds: One time each; may be empty.
    """
    if not seconds:
        return {"count": 0, "mean_ms": 0.0, "p50_ms": 0.0, "p95_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000

    return {
        "count": len(ordered),
        "mean_ms": sum(ordered) / len(ordered) * 1000,
        "p50_ms": at(0.50),
        "p95_ms": at(0.95),
        "p99_ms": at(0.99),
        "max_ms": ordered[-1] * 1000,
    }


def main() -> None:
    """Read a plan, run it, write the report."""
    document = json.load(sys.stdin)
    document["requests"] = tuple(Request(**request) for request in document["requests"])
    try:
        report = uvloop.run(_Load(Plan(**document)).run())
    except* (OSError, TimeoutError) as failures:
        sys.exit(f"load generator: {failures.exceptions[0]!r}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
