"""`ish devices`: list phones, tag them, and take one from the worker that holds it."""

from dataclasses import asdict
from typing import Annotated

import typer

from contracts.settings import stop
from ops.admin import devices, operators
from ops.cli.one_line import run
from ops.cli.terminal import print_table, print_text, write_json, write_line

app = typer.Typer(help="Phones: their state, their tags, and which worker uses them.", no_args_is_help=True)

Serial = Annotated[str, typer.Argument(help="The phone's own serial number, as `list` shows it.")]
Tags = Annotated[list[str], typer.Argument(help="As commands name them in `tag`.")]


@app.command("list")
def list_(*, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show every phone that was seen within a week."""
    found = run(devices.list_devices(operators.postgres_url()))
    if as_json:
        write_json([asdict(one) for one in found])
        return
    rows = [
        (
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
        for one in found
    ]
    headers = ("serial", "state", "model", "android", "battery", "tags", "queue", "worker", "address")
    print_table(headers, rows, whole={"serial"}, spare=("address", "android", "battery", "worker"))
    for one in found:
        if one.hint:
            print_text(f"{one.serial}: {one.hint}")


@app.command()
def tag(serial: Serial, tags: Tags) -> None:
    """Add tags to a phone; a command that names one goes to any phone that has it."""
    left = run(devices.tag_device(operators.postgres_url(), serial, tags))
    write_line(f"{serial}: {' '.join(left)}")


@app.command()
def untag(serial: Serial, tags: Tags) -> None:
    """Take tags from a phone."""
    left = run(devices.untag_device(operators.postgres_url(), serial, tags))
    write_line(f"{serial}: {' '.join(left) or 'no tags'}")


@app.command()
def release(serial: Serial) -> None:
    """Take a phone from the worker that holds it; a worker with room takes it within seconds."""
    if not run(devices.release_device(operators.postgres_url(), serial)):
        stop(f"no worker holds {serial}", code=1)
    write_line(f"released {serial}")
