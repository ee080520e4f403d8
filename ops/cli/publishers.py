"""`ish publishers`: add, list and remove outside publishers, who use the queues without the gateway."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from contracts.topology import reply_queue
from ops.admin import operators, publishers
from ops.cli.one_line import run
from ops.cli.terminal import print_table, write_json, write_line

app = typer.Typer(help="Outside publishers: who may publish commands without the gateway.", no_args_is_help=True)

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
            present = {
                one.name: one.kinds
                for one in await publishers.list_publishers(broker.management_url, vhost=broker.vhost)
            }
            allowed = wanted or present.get(name)  # a new password must not widen its rights
        return await publishers.add_publisher(
            broker.management_url,
            name,
            kinds=allowed,
            amqp_url_for_admin=broker.amqp_url,
            postgres_url=operators.postgres_url(),
        )

    write_line(broker.amqp_url_of(name, run(make())))


@app.command("list")
def list_(*, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show every outside publisher."""
    broker = operators.broker()
    found = run(publishers.list_publishers(broker.management_url, vhost=broker.vhost))
    if as_json:
        write_json([asdict(one) for one in found])
        return
    rows = [
        (
            one.name,
            ", ".join(one.kinds),
            reply_queue(one.name),
            "missing" if one.replies_waiting is None else one.replies_waiting,
        )
        for one in found
    ]
    print_table(("name", "kinds", "reply queue", "replies waiting"), rows, whole={"name"}, spare=("reply queue",))


@app.command()
def remove(
    name: Name,
    *,
    replies: Annotated[bool, typer.Option("--replies", help="Delete its reply queue with what is in it.")] = False,
) -> None:
    """Remove a publisher; its reply queue stays while there are replies in it."""
    broker = operators.broker()
    left = run(
        publishers.remove_publisher(
            broker.management_url,
            name,
            replies=replies,
            amqp_url_for_admin=broker.amqp_url,
            postgres_url=operators.postgres_url(),
        )
    )
    kept = "" if left is None else f"; {reply_queue(name)} keeps {left} replies"
    write_line(f"removed {name}{kept}")
