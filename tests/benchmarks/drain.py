"""Drain: how fast ONE worker process empties a queue, to durable results and replies, and what one message costs it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import orjson
import psycopg

from ops.stack.child import Child
from tests.benchmarks.accounting import cpu_microseconds
from tests.benchmarks.bodies import relay_body
from tests.benchmarks.commands import REPLIES
from tests.benchmarks.product import Product
from tests.benchmarks.rounds import OURS, Contender, Outcome, Round, Turns, ratio
from tests.benchmarks.stand import PEER_RESULTS, BenchmarkFailed, Stand

_ROUND_SECONDS = 180.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Peer:
    """A framework's worker, one process."""

    name: str
    framework: str
    argv: tuple[str, ...]
    """What follows `python`."""
    minor: bool = False


_CELERY = (
    *("-m", "celery", "-A", "tests.benchmarks.peers.celery_app", "worker", "--loglevel", "ERROR"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)
CELERY_THREADS = Peer("Celery, 8 threads", "celery", (*_CELERY, "--pool", "threads", "--concurrency", "8"))
CELERY_PREFORK = Peer("Celery, prefork 1", "celery", (*_CELERY, "--pool", "prefork", "--concurrency", "1"), minor=True)
DRAMATIQ = Peer(
    "Dramatiq, 8 threads",
    "dramatiq",
    ("-m", "dramatiq", "tests.benchmarks.peers.dramatiq_app", "--processes", "1", "--threads", "8"),
)
PEERS = (CELERY_THREADS, CELERY_PREFORK, DRAMATIQ)
_TASKS = {"record": "(a) result only", "insert": "(b) row + result"}
_KEEPS = {
    "record": "result in Redis's memory",
    "insert": "row in PostgreSQL, committed; result in Redis's memory",
}


def run(stand: Stand, product: Product, turns: Turns, *, ours_count: int, peers_count: int) -> Outcome:
    """Measure ours and the peers in turns.

    Args:
        stand: The services.
        product: Our processes.
        turns: How often.
        ours_count: Messages of one of our rounds.
        peers_count: Messages of one of a peer's rounds, fewer, so that rounds last about as long.
    """
    measured = turns.alternate(
        Contender(
            OURS,
            "command, message, result and reply, in PostgreSQL and on the broker's disk",
            lambda: _drain_ours(stand, product, ours_count),
        ),
        *(_contender(stand, peer, task, peers_count) for task in _TASKS for peer in PEERS),
    )
    return Outcome(
        title="Drain of one worker process: queue to durable result",
        method=(
            f"queue filled beforehand ({ours_count:,} ours, {peers_count:,} each peer), 1 KiB messages, "
            "timed from the first finished to the last; ours is done when every reply is in the reply queue"
        ),
        measured=list(measured.values()),
        claims=[
            claim
            for task in _TASKS
            for peer in PEERS
            for claim in ratio(
                measured, "msg/s", OURS, to=_name(peer, task), at_least=3 if peer is CELERY_THREADS else None
            )
        ],
    )


def _contender(stand: Stand, peer: Peer, task: str, count: int) -> Contender:
    return Contender(_name(peer, task), _KEEPS[task], lambda: _drain_peer(stand, peer, task, count), peer.minor)


def _name(peer: Peer, task: str) -> str:
    return f"{peer.name} {_TASKS[task]}"


def _drain_ours(stand: Stand, product: Product, count: int) -> Round:
    product.empty()
    bodies = [orjson.dumps(relay_body(number, round_name="drain")) for number in range(count)]
    ids = product.publish(bodies)
    with product.queues() as queues:
        one = _drain(stand, count, product.worker_at_once("relay"), lambda: queues.ready(REPLIES))
    product.check_finished(ids)
    return one


def _drain_peer(stand: Stand, peer: Peer, task: str, count: int) -> Round:
    stand.empty_peers()
    stand.ask("tests.benchmarks.peers.fill", peer.framework, task, str(count), settings=stand.peer_environment)
    worker = stand.peer(f"{peer.framework}-worker", *peer.argv)
    with stand.redis(PEER_RESULTS) as client:
        one = _drain(stand, count, stand.running(worker), lambda: int(client.dbsize()))
    if task == "insert":
        with psycopg.connect(stand.peer_postgres_url) as connection:
            row = connection.execute("select count(*) from peer_messages").fetchone()
        if row != (count,):
            raise BenchmarkFailed(f"{peer.name}: {count} queued, {row} rows")
    return one


def _drain(stand: Stand, count: int, worker: AbstractContextManager[Child], finished: Callable[[], int]) -> Round:
    """Start a worker and follow it from its first finished message to its last; its start is not counted."""
    stand.checkpoint()
    with worker as child:
        deadline = time.monotonic() + _ROUND_SECONDS
        while (already := finished()) == 0:
            _pause(child, deadline)
        before = stand.usage({"worker": child})
        if already == count:
            raise BenchmarkFailed(f"{count} messages were done at the first look: measure more of them")
        while finished() < count:
            _pause(child, deadline)
        after = stand.usage({"worker": child})
        if finished() != count:
            raise BenchmarkFailed(f"{finished()} results of {count} messages")
    done = count - already
    return Round(
        figures={"msg/s": done / (after.at - before.at), "worker MiB": after.resident_mib["worker"]},
        cpu_microseconds=cpu_microseconds(before, after, per=done),
    )


def _pause(child: Child, deadline: float) -> None:
    if not child.running:
        raise BenchmarkFailed(child.last_words(f"{child.spec.name} ended by itself"))
    if time.monotonic() > deadline:
        raise BenchmarkFailed(child.last_words(f"{child.spec.name} was not done within {_ROUND_SECONDS:.0f} s"))
    time.sleep(_POLL_SECONDS)
