"""The table of log events is what the code logs."""

import re
from pathlib import Path

from contracts import logs

ROOT = Path(__file__).parents[2]
_CALL = re.compile(r"\.(?:debug|info|warning|error|exception)\(\s*\"([a-z]+(?:_[a-z]+)*)\"")


def test_every_event_is_in_the_table_and_nothing_else_is() -> None:
    logged = {
        event
        for package in ("contracts", "gateway", "workers")
        for path in (ROOT / package).rglob("*.py")
        for event in _CALL.findall(path.read_text(encoding="utf-8"))
    }
    rows = [line.split("|")[1] for line in (logs.__doc__ or "").splitlines() if line.startswith("| ")][2:]
    described = {event.strip() for row in rows for event in row.split(",")}

    assert logged == described
