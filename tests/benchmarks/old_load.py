"""The load that the system before this one reported on: 100 users, four kinds of requests, 133 a second together."""

import json
from contextlib import ExitStack

from ops.stack.layout import LOOPBACK
from tests.benchmarks.accounting import cpu_microseconds
from tests.benchmarks.bodies import relay_body
from tests.benchmarks.http_load import Plan, Request
from tests.benchmarks.product import Product
from tests.benchmarks.rounds import OURS, Claim, Contender, Outcome, Round, Turns
from tests.benchmarks.stand import BenchmarkFailed, Stand, wait_for

USERS = 100
PER_SECOND = 133
REPORTED_MEAN_MS = {"health": 14.9, "relay": 25.3, "status": 50.5, "execute": 30.2}
_EXPECTED = {"health": "200", "relay": "202", "status": "200", "execute": "202"}
_WARM_UP = 200
_FINISH_SECONDS = 180.0


def run(stand: Stand, product: Product, turns: Turns, *, seconds: float) -> Outcome:
    """Measure ours beside what the old system's report says.

    Args:
        stand: The services.
        product: Our processes.
        turns: How often.
        seconds: Length of one round.
    """
    contender = Contender(OURS, "every accepted command, as always", lambda: _round(stand, product, seconds=seconds))
    measured = turns.alternate(contender)[OURS]
    return Outcome(
        title="The old system's load",
        method=(
            f"{USERS} users, {PER_SECOND} requests/s in total for {seconds:g} s, an even mix, one gateway, "
            "a relay and an Android worker and a simulated phone at work on the same machine"
        ),
        measured=[measured],
        claims=[
            Claim(f"mean of {name}, ms (the old report: {reported:g})", measured.middle(f"{name} ms"), at_most=reported)
            for name, reported in REPORTED_MEAN_MS.items()
        ],
    )


def _round(stand: Stand, product: Product, *, seconds: float) -> Round:
    product.empty()
    stand.checkpoint()
    key = product.key_header
    requests = (
        Request("health", "GET", "/health"),
        Request("relay", "POST", "/api/relay", key, json.dumps(relay_body(0, round_name="old"))),
        Request("status", "GET", "/api/android/status", key),
        Request(
            "execute", "POST", "/api/android/execute", key, json.dumps({"command": "shell getprop ro.product.model"})
        ),
    )
    with ExitStack() as stack:
        children = {
            "phone": stack.enter_context(product.phone()),
            "relay worker": stack.enter_context(product.worker("relay")),
            "Android worker": stack.enter_context(product.worker("android")),
            "gateway": stack.enter_context(product.gateway()),
        }
        stand.load(Plan(LOOPBACK, stand.port, USERS, requests, count=_WARM_UP, seconds=seconds, per_second=PER_SECOND))
        _finish(product)
        before = stand.usage(children)
        plan = Plan(LOOPBACK, stand.port, USERS, requests, count=1_000_000, seconds=seconds, per_second=PER_SECOND)
        report = stand.load(plan)
        _finish(product)
        after = stand.usage(children)
    found = report["requests"]
    for name, expected in _EXPECTED.items():
        if found[name]["statuses"] != {expected: found[name]["count"]}:
            raise BenchmarkFailed(f"{name}: answers other than {expected}: {found[name]['statuses']}")
    return Round(
        figures={
            "req/s": report["all"]["count"] / report["seconds"],
            **{f"{name} ms": found[name]["mean_ms"] for name in REPORTED_MEAN_MS},
            "p99 ms": report["all"]["p99_ms"],
        },
        cpu_microseconds=cpu_microseconds(before, after, per=report["all"]["count"]),
    )


def _finish(product: Product) -> None:
    """Wait for the end of what was accepted, and see that all of it succeeded."""
    open_states = "commands where state in ('queued', 'running', 'retrying')"
    wait_for("every accepted command is finished", lambda: product.count(open_states) == 0, seconds=_FINISH_SECONDS)
    failed = product.count("commands where state <> 'succeeded'")
    if failed:
        raise BenchmarkFailed(f"{failed} commands did not succeed")
