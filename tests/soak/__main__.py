"""Runs everything under a mixed load for an hour and a half and tells whether a process grows: `python -m tests.soak [--minutes N]`.

Everything is private and on loopback, bounded in count and time, and stopped at the end. It fails when a process grows,
ends by itself, answers what it must not, or leaves a command unfinished.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import httpx
import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from contracts.logs import configure_logs
from ops.stack.child import Child, Spec
from ops.stack.errors import StackError
from tests.benchmarks.phones import consumed, phones
from tests.benchmarks.product import Product
from tests.benchmarks.provider import provider
from tests.benchmarks.stand import BenchmarkFailed, Stand, stand, wait_for
from tests.soak.load import Load
from tests.soak.memory import CONFIDENCE, History, Slope, slope
from tests.soak.plot import draw

BOUND_MIB_AN_HOUR = 1.0
"""A process grows when its slope can be told from 0 and is above this: buffers still settle by some tenths in an hour."""
_ANSWER_SECONDS = 0.2
_SAMPLE_SECONDS = 5.0
_DRAIN_SECONDS = 120.0
_OPEN = "commands where state in ('queued', 'running', 'retrying')"


@dataclass(frozen=True, slots=True)
class _Asked:
    minutes: float
    pace: float
    folder: Path

    @property
    def warm_up_minutes(self) -> float:
        """A third of the time: for half an hour the resident size still rises by tenths, though nothing more is kept."""
        return self.minutes / 3

    @property
    def window_minutes(self) -> float:
        """A hundredth of the time, so that some sixty windows make the slope."""
        return self.minutes / 100


def main() -> None:
    """Soak, print a table, write the plot and the figures; exit 1 when something grows or went wrong."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: everything started is stopped on the way out
    configure_logs(level="WARNING", format="text", process="soak")
    console = Console()
    asked.folder.mkdir(parents=True, exist_ok=True)
    try:
        with stand(lambda line: console.print(line, style="dim", highlight=False)) as on:
            soak = _Soak(asked, on, Product.set_up(on), console)
            load, history = soak.run(), soak.history
    except (BenchmarkFailed, StackError) as failure:
        sys.exit(f"soak: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
    slopes = history.slopes(warm_up_minutes=asked.warm_up_minutes, window_minutes=asked.window_minutes)
    draw(history, slopes, warm_up_minutes=asked.warm_up_minutes, path=asked.folder / "memory.png")
    _write(asked.folder / "soak.json", soak, slopes, load)
    console.print(_table(history, slopes, soak.blocks()))
    console.print(", ".join(f"{what}: {number}" for what, number in sorted(load.outcomes.items())), style="dim")
    console.print(f"plot: {asked.folder / 'memory.png'}, figures: {asked.folder / 'soak.json'}", highlight=False)
    grown = [name for name, found in slopes.items() if found is not None and found.grows(BOUND_MIB_AN_HOUR)]
    if grown or load.wrong:
        sys.exit(f"soak: grows: {', '.join(grown) or 'nothing'}; wrong: {dict(load.wrong) or 'nothing'}")


@dataclass(slots=True)
class _Soak:
    """One run: what is asked, what runs, and what was seen."""

    asked: _Asked
    on: Stand
    ours: Product
    console: Console
    history: History = field(default_factory=History)

    def _counted(self, spec: Spec) -> Spec:
        """The same process, which notes how much it keeps alive."""
        python, flag, *module = spec.argv
        return replace(spec, argv=(python, flag, "tests.soak.counted", str(self._counts(spec.name)), *module))

    def _counts(self, name: str) -> Path:
        return self.asked.folder / f"{name.removesuffix('-1')}-blocks.jsonl"

    def blocks(self) -> dict[str, Slope | None]:
        """How many more blocks each process keeps alive an hour later."""
        slopes = {}
        for name in self.history.mebibytes:
            file = self._counts(name)
            looks = [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []
            slopes[name] = slope(
                [look["minute"] for look in looks],
                [look["blocks"] for look in looks],
                warm_up_minutes=self.asked.warm_up_minutes,
                window_minutes=max(self.asked.window_minutes, 1.0),
            )
        return slopes

    def run(self) -> Load:
        """Put everything under load for as long as was asked, and let it finish."""
        with self._everything() as (processes, serials):
            load = asyncio.run(self._under_load(processes, serials))
            wait_for("every command is finished", lambda: self.ours.count(_OPEN) == 0, seconds=_DRAIN_SECONDS)
        _check(self.on, load)
        return load

    @contextmanager
    def _everything(self) -> Iterator[tuple[dict[str, Child], list[str]]]:
        """One process of each kind, and what stands in for the world."""
        for old in self.asked.folder.glob("*-blocks.jsonl"):
            old.unlink()
        ours = replace(self.ours, around=self._counted)
        with ExitStack() as running:
            models = running.enter_context(provider(self.on, answer_seconds=_ANSWER_SECONDS))
            addresses = running.enter_context(phones(self.on))
            processes = {
                "outbox": running.enter_context(ours.worker("outbox")),
                "android": running.enter_context(ours.worker("android")),
                "ai": running.enter_context(ours.ai_worker(models.file)),
                "relay": running.enter_context(ours.worker("relay")),
                "gateway": running.enter_context(ours.gateway()),
            }
            yield processes, consumed(self.on, len(addresses))

    async def _under_load(self, processes: Mapping[str, Child], serials: list[str]) -> Load:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.on.port}",
            headers=self.ours.key_header,
            timeout=60,
            trust_env=False,
            limits=limits,
        ) as client:
            load = Load(client, self.ours.amqp_url, serials, self.asked.minutes * 60, self.asked.pace)
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(load.run())
                group.create_task(self._sample(processes, sending))
        return load

    async def _sample(self, processes: Mapping[str, Child], sending: "asyncio.Task[None]") -> None:
        pids = {name: child.identity.pid for name, child in processes.items() if child.identity}
        began, seconds = time.monotonic(), self.asked.minutes * 60
        columns = (TextColumn("soaking"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        with Progress(*columns, console=self.console) as progress:
            shown = progress.add_task("", total=seconds)
            while not sending.done():
                for name, child in processes.items():
                    if not child.running:
                        raise BenchmarkFailed(child.last_words(f"{name} ended by itself, status {child.exit_status}"))
                elapsed = time.monotonic() - began
                self.history.sample(elapsed / 60, pids)
                newest = ", ".join(f"{name} {values[-1]:.0f}" for name, values in self.history.mebibytes.items())
                progress.update(shown, completed=elapsed, description=f"MiB: {newest}")
                await asyncio.wait({sending}, timeout=min(_SAMPLE_SECONDS, seconds / 200))


def _check(on: Stand, load: Load) -> None:
    """What is on record at the end: every kind of command has succeeded at times."""
    with psycopg.connect(on.session.postgres_url("ish_owner")) as connection:
        rows = connection.execute("select kind, state, count(*) from commands group by 1, 2").fetchall()
    for kind, state, number in rows:
        load.outcomes[f"{kind} {state}"] += number
    for wanted in ("relay succeeded", "ai.send succeeded", "android.execute succeeded"):
        if not load.outcomes[wanted]:
            load.wrong[f"no command ended as {wanted}"] += 1


def _table(history: History, slopes: Mapping[str, Slope | None], blocks: Mapping[str, Slope | None]) -> Table:
    table = Table(title=f"Resident memory; slopes with {CONFIDENCE:.0%} intervals")
    for heading in ("process", "first MiB", "last MiB", "MiB an hour", "from", "to", "live blocks an hour"):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    for name, values in history.mebibytes.items():
        found = slopes[name]
        told = (f"{found.middle:+.2f}", f"{found.low:+.2f}", f"{found.high:+.2f}") if found else ("too short", "", "")
        kept = blocks[name]
        blocks_told = f"{kept.middle:+.0f} [{kept.low:+.0f}, {kept.high:+.0f}]" if kept else ""
        table.add_row(name, f"{values[0]:.1f}", f"{values[-1]:.1f}", *told, blocks_told)
    return table


def _write(path: Path, soak: _Soak, slopes: Mapping[str, Slope | None], load: Load) -> None:
    document = {
        "minutes": soak.asked.minutes,
        "pace": soak.asked.pace,
        "slopes_mib_an_hour": {name: found and asdict(found) for name, found in slopes.items()},
        "slopes_live_blocks_an_hour": {name: found and asdict(found) for name, found in soak.blocks().items()},
        "outcomes": load.outcomes,
        "wrong": load.wrong,
        "samples": asdict(soak.history),
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _arguments() -> _Asked:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=90, metavar="N", help="how long, 0.1 to 1440 (default 90)")
    parser.add_argument("--pace", type=float, default=1, metavar="X", help="how often everything is sent, 0.1 to 20")
    parser.add_argument("--out", type=Path, default=Path("build/soak"), metavar="FOLDER", help="for plot and figures")
    given = parser.parse_args()
    if not 0.1 <= given.minutes <= 1440 or not 0.1 <= given.pace <= 20:  # as the help says
        parser.error("--minutes must be 0.1 to 1440, --pace 0.1 to 20")
    return _Asked(given.minutes, given.pace, given.out)


if __name__ == "__main__":
    main()
