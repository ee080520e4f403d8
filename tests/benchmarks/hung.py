"""What hung phones cost: their own commands the time limit, and those of other phones on the same worker nothing."""

import asyncio
import json

import orjson
import psycopg

from ops.simulators.phone.control_port import control_phone
from tests.benchmarks.accounting import cpu_microseconds
from tests.benchmarks.commands import phone_command
from tests.benchmarks.http_load import latencies
from tests.benchmarks.phones import PHONES, consumed, phones
from tests.benchmarks.product import Product
from tests.benchmarks.rounds import Claim, Contender, Outcome, Round, Turns, ratio
from tests.benchmarks.stand import Stand, wait_for

HUNG = ("hang_open", "hang", "drip", "black_hole")
PER_SECOND = 100
LIMIT_SECONDS = 2.0
_EACH = 5
"""Commands that wait for each hung phone."""
_WARM_UP = 100
_CONTROL_PORT = 5791
_NEVER_SECONDS = 60.0
_LONGEST = "longest s on a hung phone"
_KEEPS = "command, each attempt, result and reply; each phone's order through any crash"
_ATTEMPTS = """
select max(duration_seconds)::float8, count(*) from attempts a join commands c using (publisher, id)
where c.error_code = 'timeout' and c.state = 'failed'
"""


def run(stand: Stand, product: Product, turns: Turns, *, count: int) -> Outcome:
    """Measure with and without hung phones, in turns.

    Args:
        stand: The services.
        product: Our processes.
        turns: How often.
        count: Commands for the other phones in one round.
    """

    def others(*, hung: bool) -> Round:
        product.empty()
        stand.checkpoint()
        with product.worker("outbox"), product.worker("android") as worker:
            serials = consumed(stand, PHONES)
            doomed = serials[: len(HUNG)]
            if hung:
                asyncio.run(_set(dict(zip(doomed, HUNG, strict=True))))
                body = orjson.dumps({"action": "getprop", "timeout_seconds": LIMIT_SECONDS})
                product.publish_commands(
                    [phone_command(serial, body, replied=False) for _ in range(_EACH) for serial in doomed]
                )
            before = stand.usage({"worker": worker})
            asked = ("tests.benchmarks.ask", "phones", str(count + _WARM_UP), str(PER_SECOND), *serials[len(HUNG) :])
            seconds: list[float] = json.loads(stand.ask(*asked, settings={"BENCH_AMQP_URL": product.amqp_url}))
            after = stand.usage({"worker": worker})
            longest = _longest(stand, len(doomed) * _EACH) if hung else 0.0
            asyncio.run(_set(dict.fromkeys(doomed, "normal")))
        found = latencies(seconds[_WARM_UP:])
        return Round(
            figures={f"{name} ms": found[f"{name}_ms"] for name in ("p99", "p95", "p50", "max")} | {_LONGEST: longest},
            cpu_microseconds=cpu_microseconds(before, after, per=len(seconds)),
        )

    well, ill = "other phones, none hangs", f"other phones, {len(HUNG)} of {PHONES} hang"
    with phones(stand, control_port=_CONTROL_PORT):
        measured = turns.alternate(
            Contender(well, _KEEPS, lambda: others(hung=False)), Contender(ill, _KEEPS, lambda: others(hung=True))
        )
    return Outcome(
        title=f"Hung phones: {PER_SECOND} no-op shell commands a second on the others, one worker process",
        method=f"{count} commands a round, publish to reply; hung: {', '.join(HUNG)}, {LIMIT_SECONDS:g} s time limit",
        measured=list(measured.values()),
        claims=[
            *ratio(measured, "p99 ms", ill, to=well, at_most=2),
            *ratio(measured, "p50 ms", ill, to=well),
            Claim(_LONGEST, measured[ill].spread(_LONGEST)[1], at_most=LIMIT_SECONDS + 1),
        ],
    )


async def _set(answers: dict[str, str]) -> None:
    for serial, answer in answers.items():
        await control_phone(_CONTROL_PORT, phone=serial, answer=answer)


def _longest(stand: Stand, count: int) -> float:
    """How long a run of those for hung phones took at the most; each has to end as a time-out."""
    found: list[tuple[float, int]] = []

    def all_ended() -> bool:
        with psycopg.connect(stand.session.postgres_url("ish_owner")) as connection:
            found[:] = connection.execute(_ATTEMPTS).fetchall()
        return found[0][1] == count

    wait_for("every command for a hung phone is a time-out", all_ended, seconds=_NEVER_SECONDS)
    return found[0][0]
