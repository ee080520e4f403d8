"""The `ish` command: the local stack here, every other subject in a `<noun>_commands` module of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from contracts.settings import Settings, read_settings
from contracts.settings import stop as stop_process
from ops.one_line import OneLineGroup
from ops.stack import control, demo, report
from ops.stack.console import Console
from ops.stack.errors import StackError
from ops.stack.layout import Layout
from ops.terminal import write_json

app = typer.Typer(
    name="ish",
    cls=OneLineGroup,
    help="ISH Chat: durable commands for chat relays, AI models and Android phones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SUBJECTS = ("topology", "publisher", "key", "target", "command", "provider", "phone", "device", "artifact")
"""Each has its own sub-command in `ops.<subject>_commands`: `ish topology apply`, `ish keys create`, …."""

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


def _add_subjects(add: Callable[..., None]) -> None:
    for subject in SUBJECTS:
        module = f"ops.{subject}_commands"
        if find_spec(module):
            plural = subject if subject in ("topology", "phone") else f"{subject}s"
            add(import_module(module).app, name=plural)


_add_subjects(app.add_typer)
