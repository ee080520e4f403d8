"""`ish topology`: declare exchanges and queues, or show what differs from what should be there."""

from collections.abc import Sequence
from typing import Annotated

import typer

from contracts.amqp.broker import apply_topology
from contracts.settings import read_settings
from contracts.topology import topology
from ops.admin import operators, publishers, topology_state
from ops.admin.database import connected
from ops.admin.operators import BrokerAddresses
from ops.admin.rabbitmq_management import Management
from ops.cli.one_line import run
from ops.cli.terminal import print_text, write_json, write_line

app = typer.Typer(help="Exchanges, queues and bindings of the broker.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]

_SIGNS = {"+": "missing", "~": "different", "-": "not ours"}
_NOTE_LOSSES = "insert into queue_losses (queue) select name from unnest($1::text[]) name"


@app.command()
def apply() -> None:
    """Declare everything, reply queues of publishers too; what exists unchanged is left as it is."""
    broker = operators.broker()
    postgres_url = operators.postgres_url()
    made = run(apply_topology(broker.amqp_url, queue_max_length=read_settings().queue_max_length))
    if made:
        run(note_losses(postgres_url, made))
    made += run(
        publishers.restore_publishers(
            broker.management_url, amqp_url_for_admin=broker.amqp_url, postgres_url=postgres_url
        )
    )
    for line in [f"made {name}" for name in made] or ["nothing was missing"]:
        write_line(line)


@app.command()
def diff(*, as_json: AsJson = False) -> None:
    """Show what `apply` would make (+), cannot change (~) or leaves alone (-); exits with 1 if there is anything."""
    _report(run(_differences(operators.broker(), rights=False)), as_json=as_json)


@app.command()
def verify(*, as_json: AsJson = False) -> None:
    """Check exchanges, queues, bindings and the rights of our own users; exits with 1 unless all is as it should be."""
    _report(run(_differences(operators.broker(), rights=True)), as_json=as_json)


async def note_losses(postgres_url: str, queues: Sequence[str]) -> None:
    """Note that queues were missing, so that the commands recorded for them are published again.

    Args:
        postgres_url: As the role `ish_ops`.
        queues: Their names.
    """
    async with connected(postgres_url) as connection:
        await connection.execute(_NOTE_LOSSES, list(queues))


async def _differences(broker: BrokerAddresses, *, rights: bool) -> list[str]:
    async with Management(broker.management_url, vhost=broker.vhost) as api:
        wanted = topology(read_settings().queue_max_length)
        found = await topology_state.find(api)
        lines = topology_state.differences(wanted, found)
        for one in await publishers.known(api):
            lines += topology_state.differences(publishers.reply_topology(one), found)
        return lines + (await topology_state.rights_differences(api) if rights else [])


def _report(lines: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        write_json([{"state": _SIGNS[line[0]], "what": line[2:]} for line in lines])
    else:
        for line in lines or ["everything is as it should be"]:
            print_text(line)
    raise typer.Exit(1 if lines else 0)
