"""`ish publishers`: add, list and remove outside publishers, who use the queues without the gateway."""

import asyncio
import json
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import asyncpg
import typer
from rich.console import Console
from rich.table import Table

from contracts.broker import BrokerAway
from contracts.settings import stop
from contracts.topology import reply_queue
from ops import operators, publishers
from ops.management import ManagementError

app = typer.Typer(help="Outside publishers: who may publish commands without the gateway.", no_args_is_help=True)

Answer = TypeVar("Answer")
Name = Annotated[str, typer.Argument(help="Its RabbitMQ user; results go to reply.NAME.")]


@app.command()
def add(
    name: Name,
    *,
    kinds: Annotated[
        str, typer.Option(help="Routing keys it may use, such as relay,ai.send; without it, all of them.")
    ] = "",
    renew: Annotated[
        bool, typer.Option("--renew", help="It exists: give it a new password, and these kinds if any are named.")
    ] = False,
) -> None:
    """Make a publisher and print its AMQP address, once."""
    broker = operators.broker()
    wanted = [kind.strip() for kind in kinds.split(",") if kind.strip()] or None

    async def make() -> str:
        publishers.check_name(name)
        allowed: Sequence[str] | None = wanted
        if name in await publishers.list_users(broker.management_url):
            if not renew:
                raise ValueError(f"the user {name} exists: --renew gives it a new password")
            present = {one.name: one.kinds for one in await publishers.list_publishers(broker.management_url)}
            allowed = wanted or present.get(name)  # a new password must not widen its rights
        return await publishers.add_publisher(
            broker.management_url,
            name,
            kinds=allowed,
            amqp_url_for_admin=broker.amqp_url,
            postgres_url=operators.postgres_url(),
        )

    sys.stdout.write(broker.amqp_url_of(name, _run(make())) + "\n")


@app.command("list")
def list_(*, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show every outside publisher."""
    found = _run(publishers.list_publishers(operators.broker().management_url))
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in found], indent=2) + "\n")
        return
    table = Table("name", "kinds", "reply queue", "replies waiting", box=None)
    for one in found:
        waiting = "missing" if one.replies_waiting is None else str(one.replies_waiting)
        table.add_row(one.name, ", ".join(one.kinds), reply_queue(one.name), waiting)
    Console().print(table)


@app.command()
def remove(
    name: Name,
    *,
    replies: Annotated[bool, typer.Option("--replies", help="Delete its reply queue with what is in it.")] = False,
) -> None:
    """Remove a publisher; its reply queue stays while there are replies in it."""
    broker = operators.broker()
    left = _run(
        publishers.remove_publisher(
            broker.management_url,
            name,
            replies=replies,
            amqp_url_for_admin=broker.amqp_url,
            postgres_url=operators.postgres_url(),
        )
    )
    kept = "" if left is None else f"; {reply_queue(name)} keeps {left} replies"
    sys.stdout.write(f"removed {name}{kept}\n")


def _run(work: Coroutine[Any, Any, Answer]) -> Answer:
    try:
        return asyncio.run(work)
    except (ValueError, OSError, ManagementError, BrokerAway, asyncpg.PostgresError, TimeoutError) as error:
        stop(str(error) or type(error).__name__, code=1)
