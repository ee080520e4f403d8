"""The `ish` command: the local stack here, every other group of commands in a file of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from contracts.settings import Settings, read_settings
from contracts.settings import stop as stop_process
from ops.cli import artifacts, commands, devices, keys, phone, providers, publishers, targets, topology
from ops.cli.one_line import OneLineGroup
from ops.cli.terminal import write_json
from ops.stack import control, demo, report
from ops.stack.console import Console
from ops.stack.errors import StackError
from ops.stack.layout import Layout

app = typer.Typer(
    name="ish",
    cls=OneLineGroup,
    help="ISH Chat: durable commands for chat relays, AI models and Android phones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Workers = Annotated[
    str, typer.Option(help="Processes per pool, such as relay=2,ai=4; a pool that is not named gets one.")
]


@app.command()
def run(workers: Workers = "") -> None:
    """Start everything, run one command of each kind, and stay in the foreground with the logs."""
    layout, settings, console = _stack()
    counts = _counts(workers)

    def when_ready() -> None:
        with console.step("running one command of each kind"):
            lines = demo.run(layout.gateway_url, report.api_key(layout))
        report.demo(console, lines)
        report.addresses(console, layout)

    with _one_line_errors():
        control.supervise(layout, settings, console, workers=counts, when_ready=when_ready)


@app.command()
def up(
    workers: Workers = "",
    *,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it is ready; it goes on in the background.")
    ] = False,
) -> None:
    """Start everything; if it runs already, bring back what is missing."""
    layout, settings, console = _stack()
    counts = _counts(workers)

    def when_ready() -> None:
        report.addresses(console, layout)

    with _one_line_errors():
        if detach:
            control.detach(layout, console, arguments=["--workers", workers] if workers else [])
            when_ready()
        else:
            control.supervise(layout, settings, console, workers=counts, when_ready=when_ready)


@app.command()
def down() -> None:
    """Stop what `run` or `up` started, and nothing else."""
    layout, _, console = _stack()
    with _one_line_errors():
        control.down(layout, console)


@app.command()
def status(*, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show services and processes; exits with 1 unless all of them run."""
    layout, _, console = _stack()
    summary = report.summary(layout)
    if as_json:
        write_json(summary)
    else:
        report.status(console, summary)
    raise typer.Exit(0 if summary["complete"] else 1)


def _stack() -> tuple[Layout, Settings, Console]:
    settings = read_settings()
    return Layout.of(settings), settings, Console()


def _counts(text: str) -> dict[str, int]:
    try:
        return report.worker_counts(text)
    except ValueError as error:
        stop_process(f"--workers: {error}")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except StackError as error:
        stop_process(str(error), code=1)


app.add_typer(artifacts.app, name="artifacts")
app.add_typer(commands.app, name="commands")
app.add_typer(devices.app, name="devices")
app.add_typer(keys.app, name="keys")
app.add_typer(phone.app, name="phone")
app.add_typer(providers.app, name="providers")
app.add_typer(publishers.app, name="publishers")
app.add_typer(targets.app, name="targets")
app.add_typer(topology.app, name="topology")
