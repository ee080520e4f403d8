"""Hundreds of calls of providers in flight in ONE AI worker: its memory, and how much of their time is used."""

import resource
from pathlib import Path

import orjson
import psycopg

from contracts.topology import AI
from tests.benchmarks.accounting import cpu_microseconds
from tests.benchmarks.commands import ai_command
from tests.benchmarks.product import Product
from tests.benchmarks.provider import Provider, provider
from tests.benchmarks.rounds import OURS, Claim, Contender, Outcome, Round, Turns, ratio
from tests.benchmarks.stand import BenchmarkFailed, Stand, wait_for

PLACES = 500
ANSWER_SECONDS = 2.0
BARE = "plain httpx"
_RATE = "answers/s"
_MEMORY = "worker MiB at most"
_AT_ONCE = "calls at once"
_ROUND_SECONDS = 180.0
_BARE_COUNT = 2 * PLACES
"""httpx looks through all its connections for each call: more of them take minutes."""


def run(stand: Stand, product: Product, turns: Turns, *, count: int) -> Outcome:
    """Measure ours and bare calls in turns.

    Args:
        stand: The services.
        product: Our processes.
        turns: How often.
        count: Questions of one round.
    """
    measured = turns.alternate(
        Contender(OURS, "command, attempt with tokens, answer and reply", lambda: _ours(stand, product, count)),
        Contender(BARE, "nothing", lambda: _bare(stand, min(count, _BARE_COUNT))),
    )
    ours = measured[OURS]
    return Outcome(
        title=f"Flights: {PLACES} calls of {ANSWER_SECONDS:g} s in one AI worker process",
        method=f"{count:,} questions queued beforehand; from the first call to the last answer on record",
        measured=list(measured.values()),
        claims=[
            Claim(
                f"{_RATE} / ({PLACES} in flight / {ANSWER_SECONDS:g} s)",
                ours.middle(_RATE) / (PLACES / ANSWER_SECONDS),
                at_least=0.8,
            ),
            Claim(_MEMORY, ours.spread(_MEMORY)[1], at_most=300e6 / 2**20),
            *ratio(measured, _RATE, OURS, to=BARE),
        ],
    )


def _ours(stand: Stand, product: Product, count: int) -> Round:
    product.empty()
    stand.checkpoint()
    product.publish_commands([ai_command(orjson.dumps({"prompt": f"question {n}"})) for n in range(count)])
    settings = {"ISH_AI_PREFETCH": str(PLACES)}
    with provider(stand, answer_seconds=ANSWER_SECONDS) as asked, product.ai_worker(asked.file, **settings) as worker:
        before = stand.usage({"worker": worker})
        wait_for(
            "every question is answered",
            lambda: product.count("commands where state = 'succeeded'") == count,
            seconds=_ROUND_SECONDS,
            pause_seconds=0.5,
        )
        after = stand.usage({"worker": worker})
        at_once = _peak(asked)
        with product.queues() as queues:
            if queues.ready(AI):
                raise BenchmarkFailed("questions are left in the queue")
        if worker.identity is None:
            raise BenchmarkFailed("the worker has no process")
        memory = _most_resident_mib(worker.identity.pid)
    with psycopg.connect(stand.session.postgres_url("ish_owner")) as connection:
        row = connection.execute(
            "select extract(epoch from max(c.finished_at) - min(a.started_at))::float8"
            " from commands c join attempts a using (publisher, id)"
        ).fetchone()
    if row is None:
        raise BenchmarkFailed("no attempt is on record")
    return Round(
        {_RATE: count / row[0], _AT_ONCE: at_once, _MEMORY: memory}, cpu_microseconds(before, after, per=count)
    )


def _bare(stand: Stand, count: int) -> Round:
    with provider(stand, answer_seconds=ANSWER_SECONDS) as asked:
        before, own = stand.usage({}), _seconds_of_helpers()
        printed = stand.ask("tests.benchmarks.bare_calls", asked.address, str(count), str(PLACES), settings={})
        services = cpu_microseconds(before, stand.usage({}), per=count)
        at_once, own = _peak(asked), _seconds_of_helpers() - own
    return Round(
        {_RATE: count / float(printed), _AT_ONCE: at_once, _MEMORY: 0.0}, services | {"worker": own / count * 1e6}
    )


def _seconds_of_helpers() -> float:
    """Processor time of the helpers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak(asked: Provider) -> float:
    return float(asked.counts()["peak_in_flight"])


def _most_resident_mib(pid: int) -> float:
    """The most memory that a process has had so far, as the kernel counts it."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kib) / 1024
