"""Services started and set up inside this process, without a supervisor: for tests, trials and benchmarks."""

import asyncio
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from ops.stack import setup
from ops.stack.addresses import Addresses, Given
from ops.stack.binaries import Finder, default_cache_dir
from ops.stack.child import Child, stop_together
from ops.stack.errors import StackError
from ops.stack.layout import LOOPBACK, PHONE_HOST, Layout, Ports
from ops.stack.probes import port_is_free
from ops.stack.secrets import write_private
from ops.stack.services import Services

OFFSETS = range(1000, 7050, 50)
"""Offsets of private services. No port of two of them is the same (two default ports lie 10,000 apart), and none lies
where Linux takes the ports of outgoing connections from, at 32768 and above: one of those may hold a port between the
moment it was found free and the moment RabbitMQ listens on it, some seconds later, and the node then fails to boot."""
_CLAIM_PORT = 4399
"""With the offset added: a port of no service, bound by whoever uses the offset."""
_STOPPED_SECONDS = 10.0
_STILL = "tTZX"
"""States of a process in /proc: stopped, traced, ended."""
_QUEUE_SETTLES_SECONDS = 6
"""RabbitMQ 3.10 killed within some seconds of a quorum queue's declaration brings it back without a leader, for good
(seen; none at 5 s). Queues are declared long before in practice, so no test is to kill a broker that fresh."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One service, to be stopped, killed, frozen and started again by a test."""

    child: Child
    kill_not_before: float = 0.0
    """On the monotonic clock; a kill waits for it."""

    def stop(self) -> None:
        """Stop it as a person would, and wait until it has ended."""
        self.child.stop()

    def kill(self) -> None:
        """SIGKILL, to everything it consists of."""
        time.sleep(max(0.0, self.kill_not_before - time.monotonic()))
        self.child.kill()

    def start(self) -> None:
        """Start it again and wait until it answers."""
        self.child.start()

    def freeze(self) -> None:
        """SIGSTOP, to everything it consists of; returns when all of it stands still."""
        self.child.send_group(signal.SIGSTOP)
        deadline = time.monotonic() + _STOPPED_SECONDS
        while self.child.identity and not _stands_still(self.child.identity.pid) and time.monotonic() < deadline:
            time.sleep(0.01)

    def thaw(self) -> None:
        """SIGCONT."""
        self.child.send_group(signal.SIGCONT)


def _stands_still(group: int) -> bool:
    """Whether every process of a group is stopped, or gone."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group, *_ = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (OSError, ValueError):
            continue  # it has just ended
        if int(its_group) == group and state not in _STILL:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Session:
    """A private set of services that answer, with roles, tables and queues in place."""

    layout: Layout
    addresses: Addresses
    _children: dict[str, Child]
    _declared_at: float

    @property
    def broker(self) -> Fault:
        """RabbitMQ."""
        return Fault(self._children["rabbitmq"], self._declared_at + _QUEUE_SETTLES_SECONDS)

    @property
    def postgres(self) -> Fault:
        """PostgreSQL."""
        return Fault(self._children["postgres"])

    @property
    def redis(self) -> Fault:
        """Redis."""
        return Fault(self._children["redis"])

    @property
    def adb(self) -> Fault:
        """The adb server."""
        return Fault(self._children["adb"])

    def amqp_url(self, user: str) -> str:
        """A RabbitMQ user's address.

        Args:
            user: admin, gateway, worker, outbox or ops.
        """
        return self.addresses.amqp_by_user[user]

    def postgres_url(self, role: str) -> str:
        """A PostgreSQL role's address.

        Args:
            role: ish_owner, ish_gateway, ish_worker, ish_outbox or ish_ops.
        """
        return self.addresses.postgres_by_role[role]

    @property
    def management_url(self) -> str:
        """The management API as administrator."""
        return self.addresses.management_by_user["admin"]

    @property
    def redis_url(self) -> str:
        """Redis, as the user that may do everything."""
        return self.addresses.redis

    @property
    def adb_server(self) -> str:
        """The adb server, host:port."""
        return self.addresses.adb_servers

    def environment(self, role: str) -> dict[str, str]:
        """Settings for a process of one role, for `subprocess` together with `PATH` and the like.

        Args:
            role: gateway, worker, outbox or ops.
        """
        folder = self.layout.secrets_dir
        urls = {
            "ISH_AMQP_URL": self.amqp_url(role),
            "ISH_POSTGRES_URL": self.postgres_url(f"ish_{role}"),
            "ISH_REDIS_URL": self.addresses.redis_by_role.get(role, ""),
        }
        environment = {}
        for name, url in urls.items():
            if not url:
                continue
            path = folder / f"{name}-{role}"
            write_private(path, url)
            environment[f"{name}_FILE"] = str(path)
        return {**environment, "ISH_ADB_SERVERS": self.adb_server}


@contextmanager
def session(
    state_dir: Path, *, offset: int | None = None, say: Callable[[str], None] = print, rabbitmq_lines: str = ""
) -> Iterator[Session]:
    """Start services, set them up, and stop them at the end.

    Args:
        state_dir: An empty folder, or one of an earlier session.
        offset: Added to the default ports; None takes one at which all are free.
        say: Told what takes long.
        rabbitmq_lines: More lines of RabbitMQ's configuration, such as listeners with TLS.
    """
    with nullcontext(offset) if offset is not None else free_offset() as own_offset:
        layout = Layout(state_dir.absolute(), Ports.at(own_offset))
        yield from _running(layout, say, rabbitmq_lines)


def _running(layout: Layout, say: Callable[[str], None], rabbitmq_lines: str) -> Iterator[Session]:
    services = Services.find(layout, Finder(default_cache_dir(), say))
    if services.rabbitmq:
        services.rabbitmq.configure(rabbitmq_lines)
    addresses = Addresses.of(layout, services, Given.nothing())
    children = [Child(spec) for spec in services.specs()]
    try:
        for child in children:
            child.spawn()
        for child in children:
            child.wait_ready()
        setup.create_roles(addresses, own_server=True)
        setup.apply_schema(addresses)
        asyncio.run(setup.apply_topology(addresses))
        yield Session(layout, addresses, {child.spec.name: child for child in children}, time.monotonic())
    finally:
        stop_together(children)


@contextmanager
def free_offset() -> Iterator[int]:
    """Have an offset at which every port of a stack is free, and which nobody else gets meanwhile.

    A service that was stopped leaves its port free for a while: who looks for an offset then must not take this one.

    Raises:
        StackError: There is none.
    """
    for offset in random.sample(OFFSETS, len(OFFSETS)):
        with socket.socket() as claim:
            try:
                claim.bind((LOOPBACK, _CLAIM_PORT + offset))
            except OSError:
                continue
            ports = asdict(Ports.at(offset))
            phone = ports.pop("phone")
            if all(port_is_free(LOOPBACK, port) for port in ports.values()) and port_is_free(PHONE_HOST, phone):
                yield offset
                return
    raise StackError("no free range of ports was found")
