"""Real gateway processes for tests, and the acts of a worker that they wait for, done by hand as the worker's role."""

import asyncio
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg
import httpx
import psutil  # type: ignore[import-untyped]  # it has no stubs

from contracts.amqp.messages import result_messages
from contracts.amqp.publisher import Publisher
from contracts.results import State, encode_result
from contracts.tables import ENVELOPE_COLUMNS, envelope_of
from contracts.topology import WORK_QUEUES
from ops.stack.child import Child, Spec, environment
from ops.stack.session import Fault, Session
from tests.forked import Forked

DEADLINE_SECONDS = 30.0
RELAY = {"sender": "user", "message": "hello", "timestamp": "2026-01-01T00:00:00Z"}


class GatewayProcess:
    """One `python -m gateway`."""

    def __init__(self, process: Child, url: str) -> None:
        self.process = process
        self.url = url

    def client(self, key: str, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, headers={"X-API-Key": key}, timeout=DEADLINE_SECONDS, trust_env=False, **options
        )

    @property
    def log(self) -> Path:
        """What it says."""
        return self.process.spec.log_file

    def stop(self) -> int | None:
        """Ask it to end; returns its exit status, None when it does not end."""
        self.process.send(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int | None:
        """Its exit status, waited for; None when it does not end."""
        self.process.wait(DEADLINE_SECONDS)
        return self.process.exit_status


@contextmanager
def gateway_process(services: Session, *, expect: str = "ready", **settings: str) -> Iterator[GatewayProcess]:
    port = free_port()
    with tempfile.NamedTemporaryFile(prefix="ish-gateway-", suffix=".log") as log:
        spec = Spec(
            name="gateway",
            argv=(sys.executable, "-m", "gateway"),
            environment=environment({**services.environment("gateway"), "ISH_GATEWAY_PORT": str(port), **settings}),
            log_file=Path(log.name),
            ready=lambda: True,
        )
        process = Forked(spec)
        process.spawn()
        running = GatewayProcess(process, f"http://127.0.0.1:{port}")
        try:
            wait_ready(running, expect)
            yield running
            assert running.stop() is not None, process.last_words("the gateway does not end")
        finally:
            process.kill()


def wait_ready(gateway: GatewayProcess, status: str = "ready") -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    answer = "nothing"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{gateway.url}/ready", trust_env=False, timeout=5).text
            if f'"status":"{status}"' in answer:
                return
        except httpx.HTTPError as error:
            answer = repr(error)
        time.sleep(0.05)
    raise AssertionError(f"not {status}: {answer}\n{gateway.process.last_words('gateway')}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = DEADLINE_SECONDS) -> Any:
    """The first true value of a check."""
    deadline = time.monotonic() + seconds
    while True:
        value = await check()
        if value:
            return value
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def database(services: Session, role: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(services.postgres_url(role), timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


async def post(client: httpx.AsyncClient, path: str = "/api/relay", **options: Any) -> dict[str, Any]:
    answer = await client.post(path, **{"json": RELAY, **options})
    assert answer.status_code in {200, 202}, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def recorded(services: Session, command_id: str | UUID) -> Any:
    """Its row, when there is one."""
    async with database(services, "ish_worker") as connection:
        return await connection.fetchrow(
            f"select {ENVELOPE_COLUMNS}, day, state from commands where id = $1",  # noqa: S608  # only a constant
            UUID(str(command_id)),
        )


async def finish(services: Session, command_id: str, *, reply: bool, output: dict[str, Any] | None = None) -> bytes:
    """Finish a recorded command as its worker would: the row, then (unless it is lost) the reply."""
    row = await eventually(lambda: recorded(services, command_id))
    envelope = envelope_of(row)
    now = datetime.now(UTC)
    body = encode_result(
        envelope,
        State.SUCCEEDED,
        output=output or {"text": "done"},
        attempts=1,
        started_at=now,
        finished_at=now,
        worker="test",
    )
    async with database(services, "ish_worker") as connection:
        await connection.execute(
            "update commands set state = 'succeeded', result = $2, finished_at = $3, started_at = $3, attempt = 1 where id = $1",
            UUID(command_id),
            body.decode(),
            now,
        )
    if reply:
        await _send_reply(services, row, body)
    return body


async def _send_reply(services: Session, row: Any, body: bytes) -> None:
    envelope = envelope_of(row)
    messages = result_messages(envelope, status=State.SUCCEEDED, body=body, user="worker")
    publisher = Publisher(services.amqp_url("worker"), name="test worker", timeout_seconds=DEADLINE_SECONDS)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(publisher.run())
        try:
            assert await publisher.publish_all(messages) == [None] * len(messages)
        finally:
            running.cancel()


@contextmanager
def frozen(fault: Fault) -> Iterator[None]:
    """SIGSTOP to a service and to each of its children; PostgreSQL's backends are in process groups of their own."""
    identity = fault.child.identity
    assert identity is not None
    fault.freeze()
    children = psutil.Process(identity.pid).children(recursive=True)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.suspend()
    try:
        yield
    finally:
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.resume()
        fault.thaw()


async def empty_work_queues(services: Session) -> None:
    connection = await aio_pika.connect(services.amqp_url("admin"))
    async with connection, connection.channel() as channel:
        for name in WORK_QUEUES:
            queue = await channel.get_queue(name)
            await queue.purge()


async def take(services: Session, queue: str) -> list[Any]:
    """Every message that is ready in a queue, acknowledged."""
    connection = await aio_pika.connect(services.amqp_url("admin"))
    messages: list[Any] = []
    async with connection, connection.channel() as channel:
        source = await channel.get_queue(queue)
        while (message := await source.get(no_ack=True, fail=False)) is not None:
            messages.append(message)
    return messages
