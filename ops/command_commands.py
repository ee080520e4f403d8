"""`ish commands`: list, show and cancel commands, as their owner's API key sees them."""

import json
import sys
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from contracts.commands import KINDS
from contracts.results import State
from contracts.settings import stop
from ops.gateway_client import call

app = typer.Typer(help="Commands and what became of them.", no_args_is_help=True)

_INDENT = (0, 0, 0, 4)
_STOP_SECONDS = 10
"""For which a running command's end is waited for: a few heartbeats of its worker."""
_PIPE_COLUMNS = 240

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
        _write_json(page["items"])
        return
    table = Table("id", "kind", "status", "accepted", "finished", "error", box=None)
    for one in page["items"]:
        table.add_row(
            one["id"],
            one["kind"],
            one["status"],
            _time(one["accepted_at"]),
            _time(one["finished_at"]),
            one["error_code"] or "",
        )
    _console().print(table)


@app.command()
def show(command_id: CommandId, *, as_json: AsJson = False) -> None:
    """Show a command, each of its attempts with its routing decision and calls, and its result."""
    command = call("GET", f"/api/commands/{_uuid(command_id)}")
    if as_json:
        _write_json(command)
        return
    console = _console()
    console.print(f"{command['kind']} {command['id']}: {command['status']}")
    console.print(_facts(command))
    for attempt in command["attempts"]:
        _print_attempt(console, attempt)
    _print_result(console, command["result"])


@app.command()
def cancel(command_id: CommandId) -> None:
    """Cancel a command; one that runs is stopped, if it can be, and waited for."""
    command = call("DELETE", f"/api/commands/{_uuid(command_id)}", wait=_STOP_SECONDS)
    status = "cancel requested" if command["status"] == State.RUNNING else command["status"]
    sys.stdout.write(f"{status} {command['id']}\n")


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
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value:
            table.add_row(f"  {name}", value)
    return table


def _print_attempt(console: Console, attempt: dict[str, Any]) -> None:
    error = attempt["error"]
    parts = [
        f"attempt {attempt['attempt']}: {attempt['outcome']}",
        attempt["target"] or "",
        f"{attempt['duration_seconds']:.2f} s",
        _tokens(attempt["tokens_in"], attempt["tokens_out"]),
        _cost(attempt["cost_usd"]),
        f"by {attempt['worker']}",
    ]
    console.print("\n" + ", ".join(part for part in parts if part))
    if error:
        console.print(Padding(f"{error['code']}: {error['message']}", _INDENT))
    details = attempt["details"] or {}
    if details.get("cached"):
        console.print(Padding("from the cache: an identical question was answered before", _INDENT))
    if details.get("route"):
        _print_route(console, details["route"])
    if details.get("calls"):
        _print_calls(console, details["calls"])


def _print_route(console: Console, route: dict[str, Any]) -> None:
    table = Table("", "candidate", "score", "why", box=None)
    chosen = [(str(place), one) for place, one in enumerate(route.get("candidates", ()), start=1)]
    for place, one in (*chosen, *(("-", one) for one in route.get("left_out", ()))):
        table.add_row(place, one["target"], _number(one.get("score")), one.get("reason") or "")
    alias = f"alias {route['alias']}, " if route.get("alias") else ""
    console.print(Padding(f"routing: {alias}policy {route.get('policy')}", _INDENT))
    console.print(Padding(table, _INDENT))


def _print_calls(console: Console, calls: list[dict[str, Any]]) -> None:
    table = Table("", "call", "outcome", "time", "first token", "tokens", "", box=None)
    for place, one in enumerate(calls, start=1):
        table.add_row(
            str(place),
            one["target"] + (" (probe)" if one.get("probe") else ""),
            one["outcome"],
            _seconds(one.get("seconds")),
            _seconds(one.get("first_token_seconds")),
            _tokens(one.get("tokens_in"), one.get("tokens_out")),
            one.get("message") or "",
        )
    console.print(Padding("calls", _INDENT))
    console.print(Padding(table, _INDENT))


def _print_result(console: Console, result: dict[str, Any] | None) -> None:
    if result is None:
        return
    console.print("\nresult")
    error = result.get("error")
    if error:
        console.print(Padding(f"{error['code']}: {error['message']}", _INDENT))
    else:
        console.print(Padding(json.dumps(result.get("output"), indent=2, ensure_ascii=False), _INDENT))


def _console() -> Console:
    # what others wrote is shown as it is, brackets included; in a pipe no row is broken
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    return Console(markup=False, highlight=False, emoji=False, width=width)


def _write_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _uuid(text: str) -> UUID:
    try:
        return UUID(text.removeprefix("chatcmpl-"))
    except ValueError:
        stop(f"{text!r} is no command id: it is a UUID, as `ish commands list` shows it")


def _time(text: str | None) -> str:
    """`2026-01-02 03:04:05.678`, UTC."""
    return "" if text is None else text.rstrip("Z").removesuffix("+00:00").replace("T", " ")[:23]


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
