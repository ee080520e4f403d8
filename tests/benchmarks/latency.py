"""Latency from publish to reply while messages come at an even rate, far below what any contender could take."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

from ops.stack.child import Child
from tests.benchmarks.accounting import cpu_microseconds
from tests.benchmarks.drain import CELERY_THREADS, DRAMATIQ, Peer
from tests.benchmarks.http_load import latencies
from tests.benchmarks.product import Product
from tests.benchmarks.rounds import OURS, Contender, Outcome, Round, Turns, ratio
from tests.benchmarks.stand import Stand

PER_SECOND = 200
_WARM_UP = 100
_ROW = f"{DRAMATIQ.name}, with a row"


def run(stand: Stand, product: Product, turns: Turns, *, count: int) -> Outcome:
    """Measure ours and the peers in turns.

    Args:
        stand: The services.
        product: Our processes.
        turns: How often.
        count: Messages of one round.
    """

    def ours() -> Round:
        product.empty()
        asked = ("tests.benchmarks.ask", "relay", str(count + _WARM_UP), str(PER_SECOND))
        settings = {"BENCH_AMQP_URL": product.amqp_url}
        return _round(stand, product.worker("relay"), lambda: stand.ask(*asked, settings=settings))

    def theirs(peer: Peer, task: str) -> Round:
        stand.empty_peers()
        asked = ("tests.benchmarks.peers.ask", peer.framework, task, str(count + _WARM_UP), str(PER_SECOND))
        worker = stand.peer(f"{peer.framework}-worker", *peer.argv)
        return _round(stand, stand.running(worker), lambda: stand.ask(*asked, settings=stand.peer_environment))

    nothing = "nothing: the answer is pushed to a list in Redis's memory"
    measured = turns.alternate(
        Contender(OURS, "command, message, result and reply, in PostgreSQL and on the broker's disk", ours),
        Contender(DRAMATIQ.name, nothing, lambda: theirs(DRAMATIQ, "answer")),
        Contender(_ROW, "row in PostgreSQL, committed", lambda: theirs(DRAMATIQ, "insert_and_answer"), minor=True),
        Contender(CELERY_THREADS.name, nothing, lambda: theirs(CELERY_THREADS, "answer")),
    )
    return Outcome(
        title=f"Latency: publish to reply at {PER_SECOND} a second",
        method=f"open loop, {count:,} messages a round after {_WARM_UP} to warm up, each timed from when it was due",
        measured=list(measured.values()),
        claims=[
            *ratio(measured, "p99 ms", OURS, to=DRAMATIQ.name, at_most=1),
            *ratio(measured, "p50 ms", OURS, to=DRAMATIQ.name),
            *ratio(measured, "p99 ms", OURS, to=_ROW),
            *ratio(measured, "p99 ms", OURS, to=CELERY_THREADS.name),
        ],
    )


def _round(stand: Stand, worker: AbstractContextManager[Child], ask: Callable[[], str]) -> Round:
    stand.checkpoint()
    with worker as child:
        before = stand.usage({"worker": child})
        seconds: list[float] = json.loads(ask())
        after = stand.usage({"worker": child})
    found = latencies(seconds[_WARM_UP:])
    return Round(
        figures={f"{name} ms": found[f"{name}_ms"] for name in ("p50", "p95", "p99", "max")},
        cpu_microseconds=cpu_microseconds(before, after, per=len(seconds)),
    )
