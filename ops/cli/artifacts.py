"""`ish artifacts`: upload a file for phones, list what there is, and get one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from contracts.plain_text import plain
from contracts.settings import stop
from ops.admin import uploading
from ops.admin.gateway_client import call, save
from ops.cli.terminal import console, print_table, write_json, write_line

app = typer.Typer(help="Files for phones and from them.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="Such as an APK.")],
    *,
    media_type: Annotated[str | None, typer.Option(help="What it is. Default: by its name.")] = None,
    resume: Annotated[str | None, typer.Option(help="Address of an upload that stopped, as it was printed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file; prints the artifact's id, which `install` and `push` take."""
    with _progress(file, hidden=as_json) as progress:
        artifact = uploading.upload(file, media_type=media_type, resume=resume, progress=progress)
    if as_json:
        write_json(artifact)
    else:
        write_line(artifact["id"])


@app.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show artifacts, newest first."""
    page = call("GET", "/api/artifacts", limit=limit)
    if as_json:
        write_json(page["items"])
        return
    rows = [(one["id"], one["size_bytes"], one["file_name"] or one["media_type"]) for one in page["items"]]
    print_table(("id", "bytes", "name or type"), rows, whole={"id"}, spare=("bytes",))


@app.command()
def get(
    artifact: Annotated[str, typer.Argument(help="Its id, as `list` shows it.")],
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write it; must not exist yet.")],
) -> None:
    """Write an artifact to a file."""
    if not artifact.isalnum():
        stop(f"{artifact!r} is no artifact's id: it has 64 hexadecimal digits, as `ish artifacts list` shows it")
    save(f"/api/artifacts/{artifact}", file)


@contextmanager
def _progress(file: Path, *, hidden: bool) -> Iterator[uploading.Progress]:
    """A bar on standard error, in a terminal only."""
    out = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=out, disable=hidden or not out.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(plain(file.name), total=file.stat().st_size)
        yield lambda sent: bar.update(task, completed=sent)
