"""Starts the product's real processes against the test run's services, and ends them: by signal, in any state."""

import asyncio
import json
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis.asyncio

from ops.admin.keys import create_key
from ops.stack.child import Child, Spec, environment
from ops.stack.layout import PHONE_HOST
from ops.stack.session import Fault, Session
from tests.acceptance.records import POLL_SECONDS, Queues, Records, until
from tests.forked import Forked
from workers.android.adb.server import AdbServer

ROOT = Path(__file__).parents[2]
QUICK = {"ISH_LEASE_SECONDS": "1.5", "ISH_HEARTBEAT_SECONDS": "0.3", "ISH_OUTBOX_AFTER_SECONDS": "1"}
"""Take-overs and re-sends within seconds."""

_PROVIDERS = """
[providers.scripted]
dialect = "openai"
base_url = "{address}"
[providers.scripted.models.steady]
input_usd_per_million_tokens = 1
output_usd_per_million_tokens = 2
[providers.scripted.models.limited]
"""


@dataclass(slots=True)
class Provider:
    """A scripted provider in its own process."""

    address: str
    providers_file: Path
    ledger: Path
    """One line before each answer and one after it."""

    async def script(self, **script: Any) -> None:
        """Add a script; see `ops.simulators.provider.scripts.Script`."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"{self.address.removesuffix('/v1')}/__script", json=script)
        assert answer.is_success, answer.text

    def calls(self) -> Counter[str]:
        """How often each command asked so far."""
        return Counter(line["command_id"] for line in self._lines() if line["event"] == "invoke")

    def billed(self, *, keys_honoured: bool) -> dict[str, tuple[int, int]]:
        """Tokens in and out of each command's good answers, as the provider counts them.

        Args:
            keys_honoured: Count the answers to one idempotency key once.
        """
        commands: dict[int, str] = {}
        found: dict[str, tuple[int, int]] = {}
        for line in self._lines():
            if line["event"] == "invoke":
                commands[line["call"]] = line["command_id"]
            elif line["event"] == "ok" and not (keys_honoured and line["repeated"]):
                tokens_in, tokens_out = found.get(commands[line["call"]], (0, 0))
                found[commands[line["call"]]] = (tokens_in + line["tokens_in"], tokens_out + line["tokens_out"])
        return found

    def _lines(self) -> Iterator[dict[str, Any]]:
        return map(json.loads, self.ledger.read_bytes().splitlines())


@dataclass(slots=True)
class Stage:
    """One test's processes, and where it looks."""

    services: Session
    folder: Path
    records: Records
    queues: Queues
    owner: str
    """Of the API key that the clients of this test use."""
    key: str = ""
    metrics_ports: dict[str, int] = field(default_factory=dict)
    _children: list[Child] = field(default_factory=list)
    _clients: list[httpx.AsyncClient] = field(default_factory=list)

    def start(self, name: str, *argv: str, role: str | None = None, **settings: str) -> Child:
        """Start `python -m …` and return at once.

        Args:
            name: Of its log file.
            argv: What follows `python -m`.
            role: Whose addresses it gets; None gives it none.
            settings: More settings.
        """
        return self._started(Forked(self._spec(name, argv, role, settings)))

    def start_anew(self, name: str, *argv: str, **settings: str) -> Child:
        """The same by exec instead of by fork, for settings that the dynamic loader reads."""
        return self._started(Child(self._spec(name, argv, None, settings)))

    def _spec(self, name: str, argv: tuple[str, ...], role: str | None, settings: dict[str, str]) -> Spec:
        addresses = {} if role is None else self.services.environment(role) | QUICK
        return Spec(
            name=name,
            argv=(sys.executable, "-m", *argv),
            environment=environment({**addresses, "ISH_LOG_FORMAT": "text", **settings}),
            # one for each start: what an earlier process of this name said must not be taken for this one's
            log_file=self.folder / f"{name}-{len(self._children)}.log",
            ready=lambda: True,
            folder=ROOT,
        )

    def _started(self, child: Child) -> Child:
        child.spawn()
        self._children.append(child)
        return child

    def worker(self, pool: str, name: str = "", **settings: str) -> Child:
        """Start one worker; its metrics are at `metrics_ports[name]`."""
        name = name or pool
        self.metrics_ports[name] = free_port()
        port = {"ISH_METRICS_PORT": str(self.metrics_ports[name])}
        role = "outbox" if pool == "outbox" else "worker"
        return self.start(name, "workers", pool, role=role, **port | settings)

    async def gateway(self, name: str = "gateway", **settings: str) -> httpx.AsyncClient:
        """Start a gateway; returns a client with a key of this test's owner, when it is ready."""
        _, client = await self.gateway_process(name, **settings)
        return client

    async def gateway_process(
        self, name: str = "gateway", *, status: str = "ready", **settings: str
    ) -> tuple[Child, httpx.AsyncClient]:
        """The same, with the process, for a test that kills it; and waited for until /ready says this."""
        port = free_port()
        child = self.start(name, "gateway", role="gateway", ISH_GATEWAY_PORT=str(port), **settings)
        self.key = self.key or await create_key(self.services.postgres_url("ish_ops"), self.owner)
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": self.key}, timeout=30, trust_env=False
        )
        self._clients.append(client)

        async def ready() -> bool:
            assert child.running, child.last_words("the gateway ended")
            try:
                answer = await client.get("/ready")
            except httpx.TransportError:
                return False
            return bool(answer.status_code == httpx.codes.OK and answer.json()["status"] == status)

        await until("the gateway is ready", ready)
        return child, client

    async def provider(self, *, latency_seconds: float = 0.0) -> Provider:
        """Start a scripted provider, and write a providers file that names it."""
        # limits and breakers are kept under a provider's name, and every test's has the same
        async with redis.asyncio.from_url(self.services.redis_url) as connection:
            await connection.flushall()
        log = self.folder / f"provider-calls-{len(self._children)}.jsonl"
        arguments = ("--port", "0", "--log", str(log), "--latency-seconds", str(latency_seconds))
        child = self.start("provider", "ops.simulators.provider", *arguments)
        line = await self.line_of(child, "scripted provider at ")
        provider = Provider(line.rpartition(" at ")[2], self.folder / "providers.toml", log)
        provider.providers_file.write_text(_PROVIDERS.format(address=provider.address), encoding="utf-8")
        return provider

    @asynccontextmanager
    async def phone(self) -> AsyncIterator[Path]:
        """Run a simulated phone behind the real adb server; yields the file of its effects."""
        port = free_port()
        effects = self.folder / f"effects-{port}.jsonl"
        address = f"{PHONE_HOST}:{port}"
        child = self.start("phone", "ops.simulators.phone", "--listen", address, "--effects", str(effects))
        await self.line_of(child, "listens on ")
        host, _, server_port = self.services.adb_server.rpartition(":")
        server = AdbServer(host, int(server_port))
        await server.connect(address, timeout_seconds=30)

        async def ready() -> bool:
            listed = await server.phones(timeout_seconds=30)
            return any(phone.serial == address and phone.state == "device" for phone in listed)

        await until("the phone is ready", ready)
        try:
            yield effects
        finally:
            await server.disconnect(address, timeout_seconds=30)

    async def line_of(self, child: Child, containing: str) -> str:
        """The first line of a process's log with this text, waited for."""

        def line() -> str:
            lines = child.spec.log_file.read_text(encoding="utf-8").splitlines()
            return next((one for one in lines if containing in one), "")

        await until(f"{child.spec.name} says {containing!r}", lambda: bool(line()) or not child.running)
        assert line(), child.last_words(f"{child.spec.name} ended")
        return line()

    async def ended(self, child: Child, *, seconds: float = 60) -> int | None:
        """The exit status of a process, negative for a signal, waited for."""
        await until(f"{child.spec.name} ends", lambda: not child.running, seconds=seconds)
        return child.exit_status

    async def stopped(self, child: Child) -> int | None:
        """Ask a process to stop as a supervisor does, and wait for its exit status."""
        child.send(signal.SIGTERM)
        return await self.ended(child)

    async def metric(self, name: str, metric: str) -> float:
        """The sum of a metric's samples at one of the processes; 0 while it is not listening yet."""
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                text = (await client.get(f"http://127.0.0.1:{self.metrics_ports[name]}/metrics")).text
        except httpx.TransportError:
            return 0
        lines = (line for line in text.splitlines() if line.startswith((f"{metric} ", f"{metric}{{")))
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    @staticmethod
    async def pause() -> None:
        """Between two looks at something."""
        await asyncio.sleep(POLL_SECONDS)

    async def back(self, service: Fault) -> None:
        """Start a service again, without stopping what goes on meanwhile, until it answers."""
        service.child.spawn()

        async def ready() -> bool:
            return await asyncio.to_thread(service.child.spec.ready)

        await until(f"{service.child.spec.name} answers", ready, seconds=service.child.spec.start_seconds)

    async def close(self) -> None:
        """Kill whatever still runs, stopped ones too."""
        for client in self._clients:
            await client.aclose()
        for child in reversed(self._children):
            child.kill()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
