"""`ish targets`: add, list and remove webhook targets."""

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

from contracts.settings import read_settings, stop
from ops import operators, targets
from workers.outbox.addresses import Rules

app = typer.Typer(help="Webhook targets: where recorded messages are delivered.", no_args_is_help=True)

Answer = TypeVar("Answer")
Name = Annotated[str, typer.Argument(help="As `deliver_to` of a relay names it.")]
Owner = Annotated[str, typer.Option(help="Whose messages.")]


@app.command()
def add(
    name: Name,
    url: Annotated[str, typer.Argument(help="Where to; https, unless ISH_DELIVERY_ALLOW_HTTP is set.")],
    *,
    owner: Owner,
    conversation: Annotated[str | None, typer.Option(help="Only this conversation; without it, every one.")] = None,
) -> None:
    """Add a target and print the secret that signs its deliveries, once."""
    settings = read_settings()
    rules = Rules(allow_http=settings.delivery_allow_http, allow_private=settings.delivery_allow_private)
    work = targets.add_target(operators.postgres_url(), owner, name, url, conversation_id=conversation, rules=rules)
    sys.stdout.write(_run(work) + "\n")


@app.command("list")
def list_(
    *,
    owner: Annotated[str | None, typer.Option(help="Only theirs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every target, without its secret."""
    found = _run(targets.list_targets(operators.postgres_url(), owner))
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in found], indent=2, default=str) + "\n")
        return
    table = Table("owner", "name", "url", "conversation", "pending", box=None)
    for one in found:
        table.add_row(one.owner, one.name, one.url, one.conversation_id or "all", str(one.pending))
    Console().print(table)


@app.command()
def remove(name: Name, *, owner: Owner) -> None:
    """Stop deliveries to a target; what waits for it is abandoned."""
    if not _run(targets.remove_target(operators.postgres_url(), owner, name)):
        stop(f"{owner} has no target {name}", code=1)
    sys.stdout.write(f"removed {name}\n")


def _run(work: Coroutine[Any, Any, Answer]) -> Answer:
    try:
        return asyncio.run(work)
    except (ValueError, OSError, asyncpg.PostgresError, TimeoutError) as error:
        stop(str(error) or type(error).__name__, code=1)
