"""What interactive questions to a model wait for while thousands of batch questions are queued."""

import json

import orjson

from contracts.topology import AI_BATCH
from tests.benchmarks.accounting import cpu_microseconds
from tests.benchmarks.commands import ai_command
from tests.benchmarks.http_load import latencies
from tests.benchmarks.product import Product
from tests.benchmarks.provider import provider
from tests.benchmarks.rounds import Contender, Outcome, Round, Turns, ratio
from tests.benchmarks.stand import BenchmarkFailed, Stand

PER_SECOND = 20
_COUNT = 300
_WARM_UP = 40
_ANSWER_SECONDS = 0.1


def run(stand: Stand, product: Product, turns: Turns, *, batch_count: int) -> Outcome:
    """Measure with and without a backlog, in turns.

    Args:
        stand: The services.
        product: Our processes.
        turns: How often.
        batch_count: Batch questions that are queued before the interactive ones begin.
    """

    def interactive(*, batch: int) -> Round:
        product.empty()
        stand.checkpoint()
        product.publish_commands(
            [ai_command(orjson.dumps({"prompt": f"batch {number}"}), batch=True) for number in range(batch)]
        )
        with provider(stand, answer_seconds=_ANSWER_SECONDS) as asked, product.ai_worker(asked.file) as child:
            before = stand.usage({"worker": child})
            settings = {"BENCH_AMQP_URL": product.amqp_url}
            argv = ("tests.benchmarks.ask", "ai", str(_COUNT + _WARM_UP), str(PER_SECOND))
            seconds: list[float] = json.loads(stand.ask(*argv, settings=settings))
            after = stand.usage({"worker": child})
            with product.queues() as queues:
                if batch and not queues.ready(AI_BATCH):
                    raise BenchmarkFailed("the batch work was over before the interactive questions were")
        found = latencies(seconds[_WARM_UP:])
        return Round(
            figures={f"{name} ms": found[f"{name}_ms"] for name in ("p95", "p50", "max")},
            cpu_microseconds=cpu_microseconds(before, after, per=len(seconds)),
        )

    idle, crowded = "interactive, nothing else", f"interactive, {batch_count:,} batch questions queued"
    measured = turns.alternate(
        Contender(idle, "every command and answer, as always", lambda: interactive(batch=0)),
        Contender(crowded, "every command and answer, as always", lambda: interactive(batch=batch_count)),
    )
    return Outcome(
        title=f"Priority: {PER_SECOND} interactive questions a second beside batch work, one AI worker",
        method=f"a provider that takes {_ANSWER_SECONDS:g} s; {_COUNT} questions a round, publish to reply",
        measured=list(measured.values()),
        claims=ratio(measured, "p95 ms", crowded, to=idle, at_most=2),
    )
