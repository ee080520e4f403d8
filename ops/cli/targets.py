"""`ish targets`: add, list and remove webhook targets."""

from dataclasses import asdict
from typing import Annotated

import typer

from contracts.settings import read_settings, stop
from ops.admin import operators, targets
from ops.cli.one_line import run
from ops.cli.terminal import print_table, write_json, write_line
from workers.outbox.webhooks.addresses import Rules

app = typer.Typer(help="Webhook targets: where recorded messages are delivered.", no_args_is_help=True)

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
    write_line(run(work))


@app.command("list")
def list_(
    *,
    owner: Annotated[str | None, typer.Option(help="Only theirs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every target, without its secret."""
    found = run(targets.list_targets(operators.postgres_url(), owner))
    if as_json:
        write_json([asdict(one) for one in found])
        return
    rows = [(one.owner, one.name, one.url, one.conversation_id or "all", one.pending) for one in found]
    print_table(("owner", "name", "url", "conversation", "pending"), rows, whole={"owner", "name"})


@app.command()
def remove(name: Name, *, owner: Owner) -> None:
    """Stop deliveries to a target; what waits for it is abandoned."""
    if not run(targets.remove_target(operators.postgres_url(), owner, name)):
        stop(f"{owner} has no target {name}", code=1)
    write_line(f"removed {name}")
