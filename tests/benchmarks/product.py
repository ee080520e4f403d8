"""Our own side: the processes as `make run` starts them, commands of the outside publisher `demo`, and what is checked."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import psycopg

from contracts.amqp.publisher import Outgoing, Publisher, PublishFailed
from contracts.settings import read_settings
from contracts.topology import AI, AI_BATCH, ANDROID, RELAY
from ops.stack import accounts
from ops.stack.adb_server import AdbServer
from ops.stack.binaries import adb
from ops.stack.child import Child, Spec
from ops.stack.processes import Processes
from tests.benchmarks.commands import PUBLISHER, REPLIES, relay_command
from tests.benchmarks.queues import Queues, watching
from tests.benchmarks.stand import BenchmarkFailed, Stand

_TABLES = "commands, command_keys, attempts, outbox, messages, conversations, deliveries, dead_letters"
_PUBLISH_TIMEOUT_SECONDS = 30.0
_PUBLISH_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Product:
    """ISH Chat on a stand."""

    stand: Stand
    processes: Processes
    amqp_url: str
    """Of the publisher `demo`."""
    key_header: dict[str, str]
    around: Callable[[Spec], Spec] = field(default=lambda spec: spec)
    """Changes how each process is started."""

    @classmethod
    def set_up(cls, stand: Stand) -> "Product":
        """Add the publisher and a key.

        Args:
            stand: The services.
        """
        layout, addresses = stand.session.layout, stand.session.addresses
        amqp_url = asyncio.run(accounts.publisher(layout, addresses))
        key = asyncio.run(accounts.api_key(layout, addresses))
        processes = Processes(layout, read_settings(), addresses, providers_file="")
        return cls(stand, processes, amqp_url, {"x-api-key": key})

    def _running(self, spec: Spec) -> AbstractContextManager[Child]:
        return self.stand.running(self.around(spec))

    def gateway(self) -> AbstractContextManager[Child]:
        """One gateway process, ready."""
        return self._running(self.processes.gateway())

    def worker(self, pool: str) -> AbstractContextManager[Child]:
        """One worker process that consumes already.

        Args:
            pool: What it works on.
        """
        return self._running(self._worker(pool))

    def ai_worker(self, providers_file: Path, **settings: str) -> AbstractContextManager[Child]:
        """One AI worker process that consumes already.

        Args:
            providers_file: Whom it asks.
            settings: More settings.
        """
        processes = replace(self.processes, providers_file=str(providers_file))
        spec = next(spec for spec in processes.workers({}) if spec.name == "ai-1")
        return self._running(replace(spec, environment={**spec.environment, **settings}))

    def worker_at_once(self, pool: str) -> AbstractContextManager[Child]:
        """One worker process, handed over before it is ready, so that its first message is seen.

        Args:
            pool: What it works on.
        """
        return self._running(replace(self._worker(pool), ready=lambda: True))

    def phone(self) -> AbstractContextManager[Child]:
        """The simulated phone, connected to the adb server."""
        return self._running(self.processes.phone(AdbServer(self.stand.session.layout, adb())))

    @contextmanager
    def queues(self) -> Iterator[Queues]:
        """A look into the queues."""
        with watching(self.stand.session.amqp_url("admin")) as queues:
            yield queues

    def empty(self) -> None:
        """Forget what earlier rounds left in queues, tables and Redis."""
        with self.queues() as queues:
            for name in (RELAY, AI, AI_BATCH, ANDROID, REPLIES):
                queues.purge(name)
        with psycopg.connect(self.stand.session.postgres_url("ish_owner"), autocommit=True) as connection:
            connection.execute(f"truncate {_TABLES}")
        with self.stand.redis(0) as client:
            client.flushdb()

    def accepted(self) -> int:
        """Relays both on the broker and recorded in PostgreSQL; -1 while the two differ."""
        with self.queues() as queues:
            queued = queues.ready(RELAY)
        return queued if queued == self.count("commands where state = 'queued'") else -1

    def count(self, of: str) -> int:
        """Count rows.

        Args:
            of: What follows `from`.
        """
        statement = f"select count(*) from {of}"  # noqa: S608  # the benchmarks' own constants
        with psycopg.connect(self.stand.session.postgres_url("ish_owner")) as connection:
            row = connection.execute(statement.encode()).fetchone()
        return int(row[0]) if row else 0

    def publish(self, bodies: Sequence[bytes]) -> list[str]:
        """Publish relay commands as `demo`.

        Args:
            bodies: Payloads.

        Returns:
            Their ids.
        """
        return self.publish_commands([relay_command(body) for body in bodies])

    def publish_commands(self, messages: Sequence[Outgoing]) -> list[str]:
        """Publish commands as `demo`, each persistent, mandatory and confirmed.

        Args:
            messages: The commands.

        Returns:
            Their ids.
        """

        async def publish() -> None:
            publisher = Publisher(self.amqp_url, name="ish benchmark", timeout_seconds=_PUBLISH_TIMEOUT_SECONDS)
            async with asyncio.TaskGroup() as group:
                connection = group.create_task(publisher.run())
                for start in range(0, len(messages), _PUBLISH_AT_ONCE):
                    for failure in await publisher.publish_all(messages[start : start + _PUBLISH_AT_ONCE]):
                        if failure is not None:
                            raise failure
                connection.cancel()

        try:
            asyncio.run(publish())
        except* PublishFailed as failures:
            raise BenchmarkFailed(f"a command was not confirmed: {failures.exceptions[0]}") from None
        return [message.properties.message_id for message in messages]

    def check_finished(self, ids: Collection[str]) -> None:
        """Every command succeeded once, recorded one message and was answered once.

        Args:
            ids: Everything that was published.

        Raises:
            BenchmarkFailed: Something was lost or doubled.
        """
        rows = self.count(f"commands where publisher = '{PUBLISHER}' and state = 'succeeded'")
        messages = self.count("messages")
        others = self.count("commands where state <> 'succeeded'") + self.count("dead_letters")
        if (rows, messages, others) != (len(ids), len(ids), 0):
            raise BenchmarkFailed(f"{len(ids)} published: {rows} succeeded, {messages} messages, {others} others")
        with self.queues() as queues:
            replies = queues.take(REPLIES, queues.ready(REPLIES))
        if len(replies) != len(ids) or {identity for identity, _ in replies} != set(ids):
            raise BenchmarkFailed(f"{len(ids)} published: {len(replies)} replies, some lost or doubled")
        if any(orjson.loads(body)["status"] != "succeeded" for _, body in replies):
            raise BenchmarkFailed("a reply says something other than succeeded")

    def _worker(self, pool: str) -> Spec:
        return next(spec for spec in self.processes.workers({}) if spec.name == f"{pool}-1")
