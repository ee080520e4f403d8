"""`ish topology`: declare exchanges and queues, or show what differs from what should be there."""

import asyncio
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import asyncpg
import typer

from contracts.broker import BrokerAway, apply_topology
from contracts.settings import read_settings, stop
from contracts.topology import topology
from ops import operators, publishers, topology_state
from ops.management import Management, ManagementError

app = typer.Typer(help="Exchanges, queues and bindings of the broker.", no_args_is_help=True)

Answer = TypeVar("Answer")

_NOTE_LOSSES = "insert into queue_losses (queue) select name from unnest($1::text[]) name"


@app.command()
def apply() -> None:
    """Declare everything, reply queues of publishers too; what exists unchanged is left as it is."""
    broker = operators.broker()
    postgres_url = operators.postgres_url()
    made = _run(apply_topology(broker.amqp_url, queue_max_length=read_settings().queue_max_length))
    if made:
        _run(note_losses(postgres_url, made))
    made += _run(
        publishers.restore_publishers(
            broker.management_url, amqp_url_for_admin=broker.amqp_url, postgres_url=postgres_url
        )
    )
    sys.stdout.write("".join(f"made {name}\n" for name in made) or "nothing was missing\n")


@app.command()
def diff() -> None:
    """Show what `apply` would make (+), cannot change (~) or leaves alone (-); exits with 1 if there is anything."""
    _report(_run(_differences(operators.broker().management_url, rights=False)))


@app.command()
def verify() -> None:
    """Check exchanges, queues, bindings and the rights of our own users; exits with 1 unless all is as it should be."""
    _report(_run(_differences(operators.broker().management_url, rights=True)))


async def note_losses(postgres_url: str, queues: Sequence[str]) -> None:
    """Note that queues were missing, so that the commands recorded for them are published again.

    Args:
        postgres_url: As the role `ish_ops`.
        queues: Their names.
    """
    connection = await asyncpg.connect(postgres_url, timeout=10, command_timeout=10)
    try:
        await connection.execute(_NOTE_LOSSES, list(queues))
    finally:
        await connection.close()


async def _differences(management_url: str, *, rights: bool) -> list[str]:
    async with Management(management_url) as api:
        wanted = topology(read_settings().queue_max_length)
        found = await topology_state.find(api)
        lines = topology_state.differences(wanted, found)
        for one in await publishers.known(api):
            lines += topology_state.differences(publishers.reply_topology(one), found)
        return lines + (await topology_state.rights_differences(api) if rights else [])


def _report(lines: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines) or "everything is as it should be\n")
    raise typer.Exit(1 if lines else 0)


def _run(work: Coroutine[Any, Any, Answer]) -> Answer:
    try:
        return asyncio.run(work)
    except (ValueError, OSError, BrokerAway, ManagementError, asyncpg.PostgresError, TimeoutError) as error:
        stop(str(error) or type(error).__name__, code=1)
