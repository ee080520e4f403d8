"""Runs the benchmarks: `python -m tests.benchmarks [--only ingest,drain] [--rounds N] [--json FILE] [--quick]`.

Everything is private and on loopback, bounded in count and time, and stopped at the end. Figures never fail a run;
anything lost, doubled or refused does.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from contracts.logs import configure_logs
from ops.stack.errors import StackError
from tests.benchmarks import drain, flights, hung, ingest, latency, old_load, phones, priority, report
from tests.benchmarks.accounting import Machine
from tests.benchmarks.product import Product
from tests.benchmarks.rounds import Outcome, Turns
from tests.benchmarks.stand import BenchmarkFailed, Stand, stand


@dataclass(frozen=True, slots=True)
class _Size:
    """How much is sent: for figures, or only to see that everything works."""

    rounds: int
    ingest_seconds: float
    drain_ours: int
    drain_peers: int
    latency_count: int
    old_seconds: float
    batch_count: int
    flights: int
    on_each_phone: int
    beside_hung: int


_FULL = _Size(
    rounds=3,
    ingest_seconds=8,
    drain_ours=20_000,
    drain_peers=3_000,
    latency_count=3_000,
    old_seconds=30,
    batch_count=10_000,
    flights=10_000,
    on_each_phone=150,
    beside_hung=2_000,
)
_QUICK = _Size(
    rounds=1,
    ingest_seconds=2,
    drain_ours=5_000,
    drain_peers=600,
    latency_count=300,
    old_seconds=4,
    batch_count=2_000,
    flights=1_000,
    on_each_phone=20,
    beside_hung=300,
)
_BENCHMARKS: dict[str, Callable[[Stand, Product, Turns, _Size], Outcome]] = {
    "ingest": lambda on, ours, turns, size: ingest.run(on, ours, turns, seconds=size.ingest_seconds),
    "drain": lambda on, ours, turns, size: drain.run(
        on, ours, turns, ours_count=size.drain_ours, peers_count=size.drain_peers
    ),
    "latency": lambda on, ours, turns, size: latency.run(on, ours, turns, count=size.latency_count),
    "priority": lambda on, ours, turns, size: priority.run(on, ours, turns, batch_count=size.batch_count),
    "flights": lambda on, ours, turns, size: flights.run(on, ours, turns, count=size.flights),
    "phones": lambda on, ours, turns, size: phones.run(on, ours, turns, each=size.on_each_phone),
    "hung": lambda on, ours, turns, size: hung.run(on, ours, turns, count=size.beside_hung),
    "old": lambda on, ours, turns, size: old_load.run(on, ours, replace(turns, rounds=1), seconds=size.old_seconds),
}


def main() -> None:
    """Run what was asked for, print the tables, write the JSON; exit 1 when something was lost, doubled or refused."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: everything started is stopped on the way out
    configure_logs(level="WARNING", format="text", process="benchmarks")
    size = _QUICK if asked.quick else _FULL
    rounds = asked.rounds or size.rounds
    console = Console(width=max(140, Console().width))
    about = report.machine()
    console.print(f"{about['cores']} cores, {about['processor']}, load {about['load_average_before']}; {rounds} rounds")
    outcomes: dict[str, Outcome] = {}
    before = Machine.now()
    say: Callable[[str], None] = lambda line: console.print(line, style="dim", highlight=False)  # noqa: E731  # a name for one line
    turns = Turns(rounds, quick=asked.quick, say=say)
    try:
        with stand(say) as on:
            ours = Product.set_up(on)
            for name in asked.only:
                say(f"{name} ...")
                outcomes[name] = _BENCHMARKS[name](on, ours, turns, size)
            used = report.versions(on.versions())
    except (BenchmarkFailed, StackError) as failure:
        sys.exit(f"benchmarks: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
    about["taken_by_others"] = round(Machine.now().taken_by_others(before), 3)
    for outcome in outcomes.values():
        report.show(console, outcome)
    console.print("\n" + ", ".join(f"{name} {version}" for name, version in used.items()), highlight=False)
    console.print(f"other processes took {about['taken_by_others']:.0%} of the machine meanwhile", highlight=False)
    if asked.json:
        found = report.document(outcomes, about=about, used=used, rounds=rounds, quick=asked.quick)
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", type=_names, default=list(_BENCHMARKS), metavar="NAMES", help=f"of {','.join(_BENCHMARKS)}"
    )
    parser.add_argument(
        "--rounds", type=int, choices=range(1, 21), metavar="N", help="turns of each contender, 1 to 20"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="a minute to see that all works; its figures mean little")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = set(names) - set(_BENCHMARKS)
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(_BENCHMARKS)}")
    return names


if __name__ == "__main__":
    main()
