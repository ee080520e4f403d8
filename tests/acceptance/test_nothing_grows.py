"""Idle processes keep nothing: after thousands of ticks each holds the objects that it held before."""

import json
from pathlib import Path
from typing import Any

from ops.stack.child import Child
from tests.acceptance.records import until
from tests.acceptance.stage import Stage, free_port

EVERY = {"gateway": 20_000, "relay": 3000, "ai": 3000, "android": 3000, "outbox": 3000}
"""Ticks between two reports: some four minutes' worth for each; the gateway looks for requests most of the time."""
SPREAD = 100
"""Objects that may be there by chance at one report and not at another; one kept in a few seconds is above it."""


async def test_idle_processes_keep_nothing_of_their_ticks(stage: Stage) -> None:
    provider = await stage.provider()
    files = {"ISH_PROVIDERS_FILE": str(provider.providers_file)}
    port = {"ISH_GATEWAY_PORT": str(free_port())}
    async with stage.phone():
        processes = {
            "gateway": hurried(stage, "gateway", "gateway", role="gateway", **port),
            "relay": hurried(stage, "relay", "workers", "relay", role="worker"),
            "ai": hurried(stage, "ai", "workers", "ai", role="worker", **files),
            "android": hurried(stage, "android", "workers", "android", role="worker"),
            "outbox": hurried(stage, "outbox", "workers", "outbox", role="outbox"),
        }
        grown = {name: await growth(stage, name, process) for name, process in processes.items()}

    assert not any(grown.values()), grown


def hurried(stage: Stage, name: str, *argv: str, role: str, **settings: str) -> Child:
    """Start a process whose ticks hurry."""
    arguments = ("tests.acceptance.hurried", str(reports_of(stage, name)), str(EVERY[name]), *argv)
    return stage.start(name, *arguments, role=role, **settings)


def reports_of(stage: Stage, name: str) -> Path:
    return stage.folder / f"{name}-objects.jsonl"


async def growth(stage: Stage, name: str, process: Child) -> dict[str, int]:
    """How many more objects of which types there are after two more reports than at the second."""

    def reports() -> list[dict[str, Any]]:
        file = reports_of(stage, name)
        whole = file.read_bytes().rpartition(b"\n")[0] if file.exists() else b""  # the last line may be half written
        return [json.loads(line)["objects"] for line in whole.splitlines()]

    await until(f"{name} has reported", lambda: len(reports()) >= 4 or not process.running, seconds=120)
    assert process.running, process.last_words(f"{name} ended")
    _, before, _, after, *_ = reports()
    return {kind: after[kind] - before.get(kind, 0) for kind in after if after[kind] - before.get(kind, 0) > SPREAD}
