"""What a run found, as tables for people and as one JSON document for machines."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.rounds import Claim, Measured, Outcome

_PACKAGES = (
    *("aio-pika", "aiormq", "asyncpg", "faststream", "fastapi", "pydantic", "uvicorn", "uvloop"),
    *("celery", "dramatiq", "redis", "psycopg"),
)


def machine() -> dict[str, Any]:
    """What all of this ran on."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def versions(services: Mapping[str, str]) -> dict[str, str]:
    """Versions of Python, of the packages that matter, and of the services.

    Args:
        services: Asked of the services themselves.
    """
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"Python": platform.python_version(), **services, **packages}


def document(
    outcomes: Mapping[str, Outcome], *, about: Mapping[str, Any], used: Mapping[str, str], rounds: int, quick: bool
) -> dict[str, Any]:
    """Everything as one JSON-ready document, every round of it.

    Args:
        outcomes: By the benchmark's name.
        about: See `machine`.
        used: See `versions`.
        rounds: How often each contender had its turn.
        quick: Whether this was a short run, good for finding faults and not for figures.
    """
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": dict(about),
        "versions": dict(used),
        "rounds": rounds,
        "quick": quick,
        "benchmarks": {name: _outcome(outcome) for name, outcome in outcomes.items()},
    }


def show(console: Console, outcome: Outcome) -> None:
    """Print one benchmark's tables.

    Args:
        console: Where.
        outcome: What was found.
    """
    console.print(f"\n[bold]{outcome.title}[/bold]\n{outcome.method}")
    console.print(_figures(outcome.measured))
    console.print(_costs(outcome.measured))
    console.print(_claims(outcome.claims))


def _figures(measured: Sequence[Measured]) -> Table:
    names = list(measured[0].rounds[0].figures)
    rounds = len(measured[0].rounds)
    title = f"medians of {rounds} rounds, with least and greatest" if rounds > 1 else "one round"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what survives a crash", max_width=44)
    for one in measured:
        table.add_row(one.name, *(_figure(one, name) for name in names), one.keeps)
    return table


def _figure(one: Measured, name: str) -> str:
    least, greatest = one.spread(name)
    spread = f"\n[dim]{_number(least)} to {_number(greatest)}[/dim]" if len(one.rounds) > 1 else ""
    return _number(one.middle(name)) + spread


def _costs(measured: Sequence[Measured]) -> Table:
    names = list(measured[0].rounds[0].cpu_microseconds)
    table = Table(title="where the time goes: processor µs per message, whole processes", title_justify="left")
    table.add_column("")
    for name in [*names, "all"]:
        table.add_column(name, justify="right")
    for one in measured:
        cpu = one.cpu()
        table.add_row(one.name, *(f"{cpu[name]:,.0f}" for name in names), f"{sum(cpu.values()):,.0f}")
    return table


def _claims(claims: Sequence[Claim]) -> Table:
    table = Table(title="in this run", title_justify="left", show_header=False)
    for claim in claims:
        table.add_row(claim.sentence, f"{claim.value:.2f}", _target(claim))
    return table


def _target(claim: Claim) -> str:
    if claim.at_least is None and claim.at_most is None:
        return ""
    wanted = f"at least {claim.at_least:g}" if claim.at_least is not None else f"at most {claim.at_most:g}"
    return f"[green]{wanted}: reached[/green]" if claim.holds else f"[red]{wanted}: missed[/red]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "title": outcome.title,
        "method": outcome.method,
        "contenders": [
            {
                "name": one.name,
                "keeps": one.keeps,
                "median": {name: one.middle(name) for name in one.rounds[0].figures},
                "cpu_microseconds_per_message": one.cpu(),
                "rounds": [asdict(single) for single in one.rounds],
            }
            for one in outcome.measured
        ],
        "claims": [{**asdict(claim), "holds": claim.holds} for claim in outcome.claims],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
