"""`ish keys`: make, list and revoke API keys."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from contracts.settings import stop
from ops.admin import keys, operators
from ops.cli.one_line import run
from ops.cli.terminal import print_table, write_json, write_line

app = typer.Typer(help="API keys of the HTTP gateway.", no_args_is_help=True)


@app.command()
def create(
    owner: Annotated[str, typer.Argument(help="Whose commands the key sees.")],
    *,
    label: Annotated[str, typer.Option(help="For people: what it is used for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Valid for so long; for ever without it.")] = None,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    write_line(run(keys.create_key(operators.postgres_url(), owner, label, expires_at=expires_at)))


@app.command("list")
def list_(
    *,
    owner: Annotated[str | None, typer.Option(help="Only theirs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every key, without its secret."""
    records = run(keys.list_keys(operators.postgres_url(), owner))
    if as_json:
        write_json([{name: _text(getattr(record, name)) for name in record.__slots__} for record in records])
        return
    rows = [
        (record.id, record.owner, record.label, f"{record.created_at:%Y-%m-%d %H:%M}", _state(record))
        for record in records
    ]
    print_table(("id", "owner", "label", "created", "state"), rows, whole={"id", "owner", "created"})


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The 12 characters after `ish_`, as `list` shows them.")],
) -> None:
    """End a key's validity; gateways notice within five seconds."""
    if not run(keys.revoke_key(operators.postgres_url(), key_id)):
        stop(f"there is no valid key {key_id}", code=1)
    write_line(f"revoked {key_id}")


def _state(record: keys.KeyRecord) -> str:
    if record.revoked_at is not None:
        return f"revoked {record.revoked_at:%Y-%m-%d %H:%M}"
    if record.expires_at is None:
        return "valid"
    return f"{'valid until' if record.expires_at > datetime.now(UTC) else 'expired'} {record.expires_at:%Y-%m-%d %H:%M}"


def _text(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else value
