"""Phones: no-op shell commands on many phones from ONE worker process; and one phone by our runner and by adbutils' `shell`."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import adbutils
import orjson
import psycopg

from contracts.android.command import AndroidExecute
from ops.stack.adb_server import AdbServer as StackAdbServer
from ops.stack.binaries import adb
from ops.stack.child import Child, Spec, environment
from ops.stack.layout import PHONE_HOST
from tests.benchmarks.accounting import cpu_microseconds
from tests.benchmarks.commands import phone_command
from tests.benchmarks.product import Product
from tests.benchmarks.rounds import OURS, Claim, Contender, Outcome, Round, Turns, ratio
from tests.benchmarks.stand import ROOT, BenchmarkFailed, Stand, wait_for
from workers.android.adb.server import AdbServer
from workers.android.monitor.devices import Transport, parse_servers
from workers.android.runner import run_action

PHONES = 20
RUNNER = "our runner alone, one phone, one at a time"
ADBUTILS = "adbutils' shell, one phone, one at a time"
_BODY = orjson.dumps({"action": "shell", "argv": ["getprop", "ro.product.model"]})
_LINE = "getprop ro.product.model"
_RATE = "commands/s"
_ROUND_SECONDS = 180.0


def run(stand: Stand, product: Product, turns: Turns, *, each: int) -> Outcome:
    """Measure in turns.

    Args:
        stand: The services.
        product: Our processes.
        turns: How often.
        each: Commands for each phone in one round.
    """
    with phones(stand) as addresses:
        measured = turns.alternate(
            Contender(
                OURS,
                "command, each attempt, result and reply; each phone's order through any crash",
                lambda: _ours(stand, product, addresses, each),
            ),
            Contender(RUNNER, "nothing", lambda: _alone(stand, each, _with_our_runner(stand, addresses[0], each))),
            Contender(ADBUTILS, "nothing", lambda: _alone(stand, each, _with_adbutils(stand, addresses[0], each))),
        )
    rate = measured[OURS].middle(_RATE)
    return Outcome(
        title=f"Phones: no-op shell commands on {PHONES} phones, one worker process",
        method=f"simulated phones behind a real adb server; `{_LINE}`, {each} on each phone, queued beforehand",
        measured=list(measured.values()),
        claims=[
            Claim(f"{_RATE}: {OURS}, {PHONES} phones in parallel", rate, at_least=200),
            *ratio(measured, _RATE, RUNNER, to=ADBUTILS, at_least=3),
        ],
    )


def _ours(stand: Stand, product: Product, addresses: Sequence[str], each: int) -> Round:
    product.empty()
    with product.worker("outbox"), product.worker("android") as worker:
        serials = consumed(stand, len(addresses))
        before = stand.usage({"worker": worker})
        ids = product.publish_commands([phone_command(serial, _BODY) for _ in range(each) for serial in serials])
        wait_for(
            "every command is finished",
            lambda: product.count("commands where state = 'succeeded'") == len(ids),
            seconds=_ROUND_SECONDS,
        )
        after = stand.usage({"worker": worker})
    with psycopg.connect(stand.session.postgres_url("ish_owner")) as connection:
        row = connection.execute(
            "select extract(epoch from max(finished_at) - min(started_at))::float8 from commands"
        ).fetchone()
    if row is None:
        raise BenchmarkFailed("no command is on record")
    return Round({_RATE: len(ids) / row[0]}, cpu_microseconds(before, after, per=len(ids)))


def _alone(stand: Stand, count: int, work: Callable[[], None]) -> Round:
    """Time so many commands that this process runs itself."""
    before, began, cpu = stand.usage({}), time.perf_counter(), time.process_time()
    work()
    seconds, own = time.perf_counter() - began, time.process_time() - cpu
    services = cpu_microseconds(before, stand.usage({}), per=count)
    return Round({_RATE: count / seconds}, services | {"worker": own / count * 1e6})


def _with_our_runner(stand: Stand, address: str, count: int) -> Callable[[], None]:
    transport = Transport(_server(stand), address, "")
    action = AndroidExecute.model_validate_json(_BODY).root

    async def use() -> None:
        for _ in range(count):
            await run_action(
                transport, action, deadline=time.monotonic() + _ROUND_SECONDS, fence=None, artifact_limit_bytes=1
            )

    return lambda: asyncio.run(use())


def _with_adbutils(stand: Stand, address: str, count: int) -> Callable[[], None]:
    server = _server(stand)
    device = adbutils.AdbClient(server.host, server.port).device(address)

    def use() -> None:
        for _ in range(count):
            device.shell(_LINE)

    return use


def _server(stand: Stand) -> AdbServer:
    [server] = parse_servers(stand.session.adb_server)
    return server


def consumed(stand: Stand, count: int) -> list[str]:
    """Wait until a worker consumes the queue of each phone.

    Args:
        stand: The services.
        count: How many phones there are.

    Returns:
        Their serials.
    """
    found: list[str] = []

    def all_are() -> bool:
        with psycopg.connect(stand.session.postgres_url("ish_owner")) as connection:
            rows = connection.execute(
                "select serial from devices where queue_depth is not null and state = 'device'"
                " and updated_at > clock_timestamp() - interval '5 s'"
            ).fetchall()
        found[:] = [row[0] for row in rows]
        return len(found) == count

    wait_for("every phone is consumed", all_are, seconds=_ROUND_SECONDS)
    return found


@contextmanager
def phones(stand: Stand, *, control_port: int | None = None) -> Iterator[list[str]]:
    """Run simulated phones, connected to the adb server.

    Args:
        stand: The services.
        control_port: Where their behaviour can be changed.

    Yields:
        What the adb server calls them.
    """
    server = StackAdbServer(stand.session.layout, adb())
    network, _, first = PHONE_HOST.rpartition(".")
    addresses = [f"{network}.{int(first) + place}:{stand.session.layout.ports.phone}" for place in range(PHONES)]
    control = () if control_port is None else ("--control", f"127.0.0.1:{control_port}")
    spec = Spec(
        name="phones",
        argv=(sys.executable, "-m", "ops.simulators.phone", "--listen", addresses[0], "--count", str(PHONES), *control),
        environment=environment({}),
        log_file=stand.session.layout.logs_dir / "phones.log",
        ready=lambda: all(server.connect(address) for address in addresses),
        folder=ROOT,
    )
    child: Child
    with stand.running(spec) as child:
        if not child.running:
            raise BenchmarkFailed(child.last_words("the phones ended"))
        yield addresses
