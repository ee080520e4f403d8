"""The stand that everything is measured on: private services, and processes started and stopped for one round each."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import redis

from ops.stack.child import Child, Spec, environment
from ops.stack.session import Session, session
from tests.benchmarks.accounting import Usage, usage
from tests.benchmarks.http_load import Plan
from tests.benchmarks.peers import rows

ROOT = Path(__file__).parents[2]
PEER_BROKER, PEER_RESULTS = 1, 2
"""Redis databases of the peers; 0 is ours."""
_PEER_DATABASE = "peers"
_LOAD_MARGIN_SECONDS = 60.0
_HELPER_SECONDS = 300.0


class BenchmarkFailed(Exception):
    """Something was lost, doubled or refused: figures of such a run mean nothing."""


@dataclass(frozen=True, slots=True)
class Stand:
    """Services that answer, and how to run a process against them."""

    session: Session
    say: Callable[[str], None]

    @property
    def port(self) -> int:
        """Where the HTTP server under test listens; there is one at a time."""
        return self.session.layout.ports.gateway

    @property
    def peer_postgres_url(self) -> str:
        """The peers' own database on the same server."""
        return urlsplit(self.session.addresses.postgres_administrator)._replace(path=f"/{_PEER_DATABASE}").geturl()

    def redis(self, database: int) -> "redis.Redis":
        """A client of one Redis database.

        Args:
            database: Its number.
        """
        return redis.Redis.from_url(self.redis_url(database))

    def redis_url(self, database: int) -> str:
        """The address of one Redis database.

        Args:
            database: Its number.
        """
        return urlsplit(self.session.redis_url)._replace(path=f"/{database}").geturl()

    @property
    def peer_environment(self) -> dict[str, str]:
        """Addresses for the peers' processes."""
        return {
            "PEER_BROKER_URL": self.redis_url(PEER_BROKER),
            "PEER_RESULTS_URL": self.redis_url(PEER_RESULTS),
            "PEER_POSTGRES_URL": self.peer_postgres_url,
        }

    @contextmanager
    def running(self, spec: Spec) -> Iterator[Child]:
        """Run one process; stop it at the end.

        Args:
            spec: What to run.

        Raises:
            BenchmarkFailed: It ended by itself.
        """
        child = Child(spec)
        child.start()
        try:
            yield child
            if not child.running:
                raise BenchmarkFailed(child.last_words(f"{spec.name} ended by itself, status {child.exit_status}"))
        finally:
            child.stop()

    def peer(self, name: str, *argv: str, without: str = "", ready: Callable[[], bool] = lambda: True) -> Spec:
        """How to run a peer's process.

        Args:
            name: Its name in messages and its log file's.
            argv: What follows `python`.
            without: One of its addresses that it does not get.
            ready: Whether it can be used.
        """
        addresses = {name: url for name, url in self.peer_environment.items() if name != without}
        return Spec(
            name=name,
            argv=(sys.executable, *argv),
            environment=environment({**addresses, "PYTHONWARNINGS": "ignore"}),
            log_file=self.session.layout.logs_dir / f"{name}.log",
            ready=ready,
            folder=ROOT,
        )

    def usage(self, children: Mapping[str, Child]) -> Usage:
        """Processor time so far of the services and of some processes.

        Args:
            children: Processes under test, by the name to show.
        """
        services = {
            "RabbitMQ": self.session.broker.child,
            "PostgreSQL": self.session.postgres.child,
            "Redis": self.session.redis.child,
        }
        both = {**services, **children}
        return usage({name: child.identity.pid for name, child in both.items() if child.identity})

    def load(self, plan: Plan) -> dict[str, Any]:
        """Run the load generator, in a process of its own, to its end.

        Args:
            plan: What to send.

        Returns:
            Its report.
        """
        finished = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.http_load"],
            input=plan.encode(),
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for this process, which ends it
            check=False,
            timeout=plan.seconds + _LOAD_MARGIN_SECONDS,
        )
        if finished.returncode:
            raise BenchmarkFailed(f"the load generator ended with status {finished.returncode}")
        report: dict[str, Any] = json.loads(finished.stdout)
        return report

    def ask(self, *argv: str, settings: Mapping[str, str]) -> str:
        """Run one short helper to its end, in a process of its own: the frameworks keep their settings globally.

        Args:
            argv: What follows `python -m`.
            settings: Added to its environment.

        Returns:
            What it printed.
        """
        finished = subprocess.run(
            [sys.executable, "-m", *argv],
            env=environment(settings),
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for this process, which ends it
            check=False,
            timeout=_HELPER_SECONDS,
        )
        if finished.returncode:
            raise BenchmarkFailed(f"{argv[0]} ended with status {finished.returncode}")
        return finished.stdout.decode()

    def empty_peers(self) -> None:
        """Forget what earlier rounds of the peers left."""
        for database in (PEER_BROKER, PEER_RESULTS):
            with self.redis(database) as client:
                client.flushdb()
        with psycopg.connect(self.peer_postgres_url, autocommit=True) as connection:
            connection.execute("truncate peer_messages")

    def checkpoint(self) -> None:
        """Let PostgreSQL write out what earlier rounds left, so that no round pays for another."""
        with psycopg.connect(self.session.addresses.postgres_administrator, autocommit=True) as connection:
            connection.execute("checkpoint")

    def versions(self) -> dict[str, str]:
        """Versions of the services."""
        with psycopg.connect(self.session.addresses.postgres_administrator) as connection:
            postgres = connection.info.parameter_status("server_version") or "?"
        with self.redis(0) as client:
            redis_version = str(client.info("server")["redis_version"])
        overview = httpx.get(f"{self.session.management_url}/api/overview", trust_env=False).raise_for_status().json()
        return {
            "RabbitMQ": f"{overview['rabbitmq_version']} (Erlang {overview['erlang_version']})",
            "PostgreSQL": postgres,
            "Redis": redis_version,
        }


@contextmanager
def stand(say: Callable[[str], None]) -> Iterator[Stand]:
    """Start private services in a temporary folder; stop them and remove it at the end.

    Args:
        say: Told what takes long.
    """
    folder = Path(tempfile.mkdtemp(prefix="ish-bench-"))
    folder.chmod(0o711)  # PostgreSQL runs as another user under root
    try:
        with session(folder, say=say) as running:
            built = Stand(running, say)
            with psycopg.connect(running.addresses.postgres_administrator, autocommit=True) as connection:
                connection.execute(f"create database {_PEER_DATABASE}")
            with psycopg.connect(built.peer_postgres_url, autocommit=True) as connection:
                connection.execute(rows.TABLE)
            yield built
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(what: str, condition: Callable[[], bool], *, seconds: float, pause_seconds: float = 0.05) -> None:
    """Wait until something is so.

    Args:
        what: For the error.
        condition: Asked again and again.
        seconds: At the most.
        pause_seconds: Between two askings.

    Raises:
        BenchmarkFailed: It was not so in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkFailed(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause_seconds)
