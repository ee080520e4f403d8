"""`ish devices`: list phones, tag them, and take one from the worker that holds it."""

import asyncio
import json
import sys
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import asyncpg
import typer
from rich.console import Console
from rich.table import Table

from contracts.settings import stop
from ops import devices, operators

app = typer.Typer(help="Phones: their state, their tags, and which worker uses them.", no_args_is_help=True)

_PIPE_COLUMNS = 240

Answer = TypeVar("Answer")
Serial = Annotated[str, typer.Argument(help="The phone's own serial number, as `list` shows it.")]
Tags = Annotated[list[str], typer.Argument(help="As commands name them in `tag`.")]


@app.command("list")
def list_(*, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show every phone that was seen within a week."""
    found = _run(devices.list_devices(operators.postgres_url()))
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in found], indent=2, default=str) + "\n")
        return
    table = Table(box=None)
    table.add_column("serial", no_wrap=True, overflow="fold")
    for name in ("state", "model", "android", "battery", "tags", "queue", "worker", "address"):
        table.add_column(name, overflow="fold")
    for one in found:
        table.add_row(
            one.serial,
            one.state if one.fresh else f"{one.state} (not heard of since {one.seen_at:%d %b %H:%M})",
            one.model or "",
            one.android_version or "",
            f"{one.battery_percent} %" if one.battery_percent is not None else "",
            " ".join(one.tags),
            str(one.queue_depth) if one.queue_depth is not None else "",
            (one.worker or "") if one.fresh else "",
            f"{one.transport} at {one.host}" if one.transport else one.host,
        )
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    console.print(table)
    for one in found:
        if one.hint:
            console.print(f"{one.serial}: {one.hint}", highlight=False)


@app.command()
def tag(serial: Serial, tags: Tags) -> None:
    """Add tags to a phone; a command that names one goes to any phone that has it."""
    left = _run(devices.tag_device(operators.postgres_url(), serial, tags))
    sys.stdout.write(f"{serial}: {' '.join(left)}\n")


@app.command()
def untag(serial: Serial, tags: Tags) -> None:
    """Take tags from a phone."""
    left = _run(devices.untag_device(operators.postgres_url(), serial, tags))
    sys.stdout.write(f"{serial}: {' '.join(left) or 'no tags'}\n")


@app.command()
def release(serial: Serial) -> None:
    """Take a phone from the worker that holds it; a worker with room takes it within seconds."""
    if not _run(devices.release_device(operators.postgres_url(), serial)):
        stop(f"no worker holds {serial}", code=1)
    sys.stdout.write(f"released {serial}\n")


def _run(work: Coroutine[Any, Any, Answer]) -> Answer:
    try:
        return asyncio.run(work)
    except (ValueError, OSError, asyncpg.PostgresError, TimeoutError) as error:
        stop(str(error) or type(error).__name__, code=1)
