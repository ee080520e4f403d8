"""`ish commands`: list, show and cancel commands, as their owner's API key sees them."""

import json
import sys
import textwrap
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from contracts.commands import KINDS
from contracts.plain_text import plain
from contracts.results import State
from contracts.settings import stop
from ops.admin.gateway_client import call
from ops.cli.terminal import console, fits, print_table, print_text, table, write_json, write_line

app = typer.Typer(help="Commands and what became of them.", no_args_is_help=True)

_INDENT = 4
_STOP_SECONDS = 10
"""For which a running command's end is waited for: a few heartbeats of its worker."""

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
CommandId = Annotated[str, typer.Argument(help="As the POST answered it, or `list` shows it.")]


@app.command("list")
def list_(
    *,
    status: Annotated[State | None, typer.Option(help="Only these.")] = None,
    kind: Annotated[str | None, typer.Option(help=f"Only these: {', '.join(KINDS)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show commands, newest first."""
    if kind is not None and kind not in KINDS:
        stop(f"--kind: {kind!r} is not one of {', '.join(KINDS)}")
    page = call("GET", "/api/commands", status=status.value if status else None, kind=kind, limit=limit)
    if as_json:
        write_json(page["items"])
        return
    _print_list(page["items"])


@app.command()
def show(command_id: CommandId, *, as_json: AsJson = False) -> None:
    """Show a command, each of its attempts with its routing decision and calls, and its result."""
    command = call("GET", f"/api/commands/{_uuid(command_id)}")
    if as_json:
        write_json(command)
        return
    out = console()
    write_line(f"{command['kind']} {command['id']}: {command['status']}")
    out.print(_facts(command))
    for attempt in command["attempts"]:
        _print_attempt(out, attempt)
    _print_result(command["result"])


@app.command()
def cancel(command_id: CommandId) -> None:
    """Cancel a command; one that runs is stopped, if it can be, and waited for."""
    command = call("DELETE", f"/api/commands/{_uuid(command_id)}", wait=_STOP_SECONDS)
    status = "cancel requested" if command["status"] == State.RUNNING else command["status"]
    write_line(f"{status} {command['id']}")


def _print_list(items: list[dict[str, Any]]) -> None:
    headers, whole = ("id", "kind", "status", "accepted", "finished", "error"), {"id", "kind", "status", "accepted"}
    rows = [
        (
            one["id"],
            one["kind"],
            one["status"],
            _time(one["accepted_at"]),
            _time(one["finished_at"]),
            one["error_code"],
        )
        for one in items
    ]
    out, wide = console(), table(headers, rows, whole=whole)
    if fits(out, wide):
        out.print(wide)
        return
    narrow = [
        (f"{id_}\n  {error}" if error else id_, kind, state, _day_and_time(accepted))
        for id_, kind, state, accepted, _, error in rows
    ]
    print_table(headers[:4], narrow, whole={"id", "kind", "status"}, gap=1)


def _facts(command: dict[str, Any]) -> Table:
    facts = {
        "owner": command["owner"],
        "accepted": _time(command["accepted_at"]),
        "started": _time(command["started_at"]),
        "finished": _time(command["finished_at"]),
        "deadline": _time(command["deadline_at"]),
        "waiting for": (command["waiting_for"] or {}).get("message", ""),
        "cancel asked": _time(command["cancel_requested_at"]),
        "next run": _time(command["retry_at"]),
        "correlation id": command["correlation_id"] or "",
    }
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            grid.add_row(f"  {name}", Text(plain(value)))
    return grid


def _print_attempt(out: Console, attempt: dict[str, Any]) -> None:
    error = attempt["error"]
    parts = [
        f"attempt {attempt['attempt']}: {attempt['outcome']}",
        attempt["target"] or "",
        f"{attempt['duration_seconds']:.2f} s",
        _tokens(attempt["tokens_in"], attempt["tokens_out"]),
        _cost(attempt["cost_usd"]),
        f"by {attempt['worker']}",
    ]
    print_text("\n" + ", ".join(part for part in parts if part), out=out)
    if error:
        print_text(f"{error['code']}: {error['message']}", indent=_INDENT, out=out)
    details = attempt["details"] or {}
    if details.get("cached"):
        print_text("from the cache: an identical question was answered before", indent=_INDENT, out=out)
    if details.get("route"):
        _print_route(out, details["route"])
    if details.get("calls"):
        _print_calls(out, details["calls"])


def _print_route(out: Console, route: dict[str, Any]) -> None:
    chosen = [(str(place), one) for place, one in enumerate(route.get("candidates", ()), start=1)]
    rows = [
        (place, one["target"], _number(one.get("score")), one.get("reason"))
        for place, one in (*chosen, *(("-", one) for one in route.get("left_out", ())))
    ]
    alias = f"alias {route['alias']}, " if route.get("alias") else ""
    print_text(f"routing: {alias}policy {route.get('policy')}", indent=_INDENT, out=out)
    out.print(Padding(table(("", "candidate", "score", "why"), rows), (0, 0, 0, _INDENT)))


def _print_calls(out: Console, calls: list[dict[str, Any]]) -> None:
    rows = [
        (
            place,
            one["target"] + (" (probe)" if one.get("probe") else ""),
            one["outcome"],
            _seconds(one.get("seconds")),
            _seconds(one.get("first_token_seconds")),
            _tokens(one.get("tokens_in"), one.get("tokens_out")),
            one.get("message"),
        )
        for place, one in enumerate(calls, start=1)
    ]
    headers = ("", "call", "outcome", "time", "first token", "tokens", "")
    print_text("calls", indent=_INDENT, out=out)
    out.print(Padding(table(headers, rows), (0, 0, 0, _INDENT)))


def _print_result(result: dict[str, Any] | None) -> None:
    if result is None:
        return
    sys.stdout.write("\nresult\n")
    error = result.get("error")
    if error:
        print_text(f"{error['code']}: {error['message']}", indent=_INDENT)
    else:  # never wrapped, so that it can be copied
        text = plain(json.dumps(result.get("output"), indent=2, ensure_ascii=False), lines=True)
        sys.stdout.write(textwrap.indent(text, " " * _INDENT) + "\n")


def _uuid(text: str) -> UUID:
    try:
        return UUID(text.removeprefix("chatcmpl-"))
    except ValueError:
        stop(f"{text!r} is no command id: it is a UUID, as `ish commands list` shows it")


def _time(text: str | None) -> str:
    """`2026-01-02 03:04:05.678`, UTC."""
    return "" if text is None else text.rstrip("Z").removesuffix("+00:00").replace("T", " ")[:23]


def _day_and_time(text: str) -> str:
    """`2026-01-02 03:04:05.678` without the year and what is less than a second."""
    return text[5:19]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _tokens(tokens_in: int | None, tokens_out: int | None) -> str:
    if tokens_in is None and tokens_out is None:
        return ""
    return f"{'?' if tokens_in is None else tokens_in} -> {'?' if tokens_out is None else tokens_out} tokens"


def _cost(value: float | None) -> str:
    return "" if value is None else f"${value:.6f}".rstrip("0").rstrip(".")
