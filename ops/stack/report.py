"""What the stack's commands print: the first results, where things are, and how they are."""

import time
from datetime import UTC, datetime
from typing import Any

from ops.stack import state
from ops.stack.console import Console
from ops.stack.demo import Line
from ops.stack.environment_file import read_value
from ops.stack.layout import Layout
from ops.stack.processes import POOLS


def api_key(layout: Layout) -> str:
    """The key in the stack's `env` file.

    Args:
        layout: Which stack.
    """
    return read_value(layout, "ISH_API_KEY")


def demo(console: Console, lines: list[Line]) -> None:
    """Print what one command of each kind brought.

    Args:
        console: Where.
        lines: One per command.
    """
    rows = [(line.command, line.status, line.said, f"{line.seconds:.2f} s") for line in lines]
    console.table(("command", "status", "result", "time"), rows)


def addresses(console: Console, layout: Layout) -> None:
    """Print the URL, where the key is, and three commands to try.

    Args:
        console: Where.
        layout: Which stack.
    """
    env = layout.environment_file
    header = '-H "X-API-Key: $ISH_API_KEY" -H "Content-Type: application/json"'
    now = datetime.now(UTC).isoformat(timespec="seconds")
    examples = (
        ("api/relay?wait=10", f'{{"sender": "user", "message": "Hello", "timestamp": "{now}"}}'),
        ("api/send?wait=30", '{"prompt": "What is a message queue?", "max_tokens": 80}'),
        ("api/android/execute?wait=30", '{"action": "screenshot"}'),
    )
    record = state.read(layout)
    for note in record.notes if record else []:
        console.say(f"note: {note}")
    console.say(f"\nISH Chat is ready at {layout.gateway_url} (API pages: {layout.gateway_url}/docs)")
    console.say(f"API key: ISH_API_KEY in {env}\n\nTry:\n  source {env}")
    for path, body in examples:
        console.say(f"  curl -s {header} \"$ISH_GATEWAY_URL/{path}\" -d '{body}'")
    console.say("")


def summary(layout: Layout) -> dict[str, Any]:
    """How the stack is, as JSON.

    Args:
        layout: Which stack.

    Returns:
        `{state, complete, pid, gateway_url, state_dir, children: [{name, state, pid, port, uptime_seconds, restarts}]}`
    """
    record = state.read(layout)
    if record is None:
        return {"state": "stopped", "complete": False, "pid": None, "state_dir": str(layout.state_dir), "children": []}
    supervised = record.supervisor.alive
    return {
        "state": record.phase if supervised else "stopped",
        "complete": record.complete,
        "pid": record.pid if supervised else None,
        "gateway_url": record.gateway_url,
        "state_dir": str(layout.state_dir),
        "children": [_child(child, supervised=supervised) for child in record.children],
    }


def status(console: Console, summary: dict[str, Any]) -> None:
    """Print how the stack is.

    Args:
        console: Where.
        summary: See `summary`.
    """
    console.say(f"{summary['state']} ({summary['state_dir']})")
    if not summary["children"]:
        return
    rows = [
        (
            child["name"],
            child["state"],
            child["pid"],
            child["port"],
            _duration(child["uptime_seconds"]),
            child["restarts"],
        )
        for child in summary["children"]
    ]
    console.table(("process", "state", "pid", "port", "up", "restarts"), rows)


def worker_counts(text: str) -> dict[str, int]:
    """Read `relay=2,ai=4`.

    Args:
        text: What was given; empty for one of each.

    Raises:
        ValueError: It names no pool, or no number from 0 to 64.
    """
    counts = {}
    for part in filter(None, text.split(",")):
        pool, _, number = part.strip().partition("=")
        if pool not in POOLS:
            message = f"{pool!r} is no pool: choose among {', '.join(POOLS)}"
            raise ValueError(message)
        if not number.isdecimal() or int(number) > 64:  # noqa: PLR2004  # stated in the message
            message = f"{part!r}: give a number from 0 to 64, as in {pool}=2"
            raise ValueError(message)
        counts[pool] = int(number)
    return counts


def _child(child: state.ChildRecord, *, supervised: bool) -> dict[str, Any]:
    alive = child.alive
    shown = child.state if supervised and (alive or child.state == "restarting") else "stopped"
    return {
        "name": child.name,
        "state": shown,
        "pid": child.pid if alive else None,
        "port": child.port,
        "uptime_seconds": round(time.time() - child.since) if alive else None,
        "restarts": child.restarts,
    }


def _duration(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
