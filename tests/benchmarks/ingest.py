"""HTTP ingest: how fast a gateway answers 202, and what one request costs, while 64 clients send without pause."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

from ops.stack.child import Child, Spec
from ops.stack.layout import LOOPBACK
from ops.stack.probes import http_answers
from tests.benchmarks.accounting import cpu_microseconds
from tests.benchmarks.bodies import relay_body
from tests.benchmarks.http_load import Plan, Request
from tests.benchmarks.product import Product
from tests.benchmarks.rounds import OURS, Contender, Outcome, Round, Turns, ratio
from tests.benchmarks.stand import PEER_BROKER, BenchmarkFailed, Stand, wait_for

CONNECTIONS = 64
_WARM_UP = 500
_ROUND_SECONDS = 60.0
_CELERY = "FastAPI + Celery .delay()"
_BARE = "FastAPI + Celery .delay(), no result backend"


def run(stand: Stand, product: Product, turns: Turns, *, seconds: float) -> Outcome:
    """Measure ours and the peers in turns.

    Args:
        stand: The services.
        product: Our processes.
        turns: How often.
        seconds: Length of one round.
    """

    def ours() -> Round:
        product.empty()
        return _round(stand, product.gateway(), product.accepted, seconds=seconds, headers=product.key_header)

    def celery(without: str = "") -> Round:
        stand.empty_peers()
        return _round(
            stand, stand.running(_celery(stand, without)), lambda: _queued(stand), seconds=seconds, headers={}
        )

    measured = turns.alternate(
        Contender(OURS, "on the broker's disk, confirmed; recorded in PostgreSQL", ours),
        Contender(_CELERY, "in Redis's memory", celery),
        Contender(
            _BARE, "in Redis's memory; nobody can ask for its result", lambda: celery("PEER_RESULTS_URL"), minor=True
        ),
    )
    return Outcome(
        title="HTTP ingest: POST /api/relay to 202",
        method=f"{CONNECTIONS} kept-alive connections, closed loop, 1 KiB message, one server process, {seconds:g} s a round",
        measured=list(measured.values()),
        claims=[
            *ratio(measured, "req/s", OURS, to=_CELERY, at_least=4),
            *ratio(measured, "req/s", OURS, to=_BARE),
            *ratio(measured, "p99 ms", OURS, to=_CELERY),
        ],
    )


def _round(
    stand: Stand,
    server: AbstractContextManager[Child],
    accepted: Callable[[], int],
    *,
    seconds: float,
    headers: dict[str, str],
) -> Round:
    stand.checkpoint()
    body = json.dumps(relay_body(0, round_name="ingest"))
    request = Request("relay", "POST", "/api/relay", headers, body)
    with server as child:
        warm_up = Plan(LOOPBACK, stand.port, CONNECTIONS, (request,), count=_WARM_UP, seconds=_ROUND_SECONDS)
        warmed = int(stand.load(warm_up)["all"]["count"])
        wait_for("the warm-up is recorded", lambda: accepted() == warmed, seconds=30)
        before = stand.usage({"server": child})
        report = stand.load(Plan(LOOPBACK, stand.port, CONNECTIONS, (request,), count=1_000_000, seconds=seconds))
        count = int(report["all"]["count"])
        # what the server does after it has answered belongs to its cost
        wait_for(f"all {count} accepted requests are there", lambda: accepted() == count + warmed, seconds=30)
        after = stand.usage({"server": child})
    if report["requests"]["relay"]["statuses"] != {"202": count}:
        raise BenchmarkFailed(f"answers other than 202: {report['requests']['relay']['statuses']}")
    return Round(
        figures={
            "req/s": count / report["seconds"],
            "p50 ms": report["all"]["p50_ms"],
            "p99 ms": report["all"]["p99_ms"],
            "server MiB": after.resident_mib["server"],
        },
        cpu_microseconds={
            **cpu_microseconds(before, after, per=count),
            "load generator": report["cpu_seconds"] / count * 1e6,
        },
    )


def _celery(stand: Stand, without: str) -> Spec:
    return stand.peer(
        "celery-gateway",
        *("-m", "uvicorn", "tests.benchmarks.peers.celery_gateway:app", "--host", LOOPBACK, "--port", str(stand.port)),
        *("--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"),
        without=without,
        ready=lambda: http_answers(f"http://{LOOPBACK}:{stand.port}/openapi.json"),
    )


def _queued(stand: Stand) -> int:
    with stand.redis(PEER_BROKER) as client:
        return int(client.llen("celery"))
