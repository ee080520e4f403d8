"""What runs now, as a file: who supervises, which processes there are, and how they are."""

import fcntl
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from ops.stack.identity import Identity
from ops.stack.layout import Layout
from ops.stack.secrets import write_private

Phase = Literal["starting", "ready", "stopping"]
ChildState = Literal["starting", "ready", "restarting", "stopped"]


class ChildRecord(BaseModel):
    """One service or process."""

    name: str
    state: ChildState
    pid: int | None = None
    started: str | None = None
    """The kernel's start time of that pid, so that a pid used again is never taken for it."""
    since: float = 0.0
    """When it was last started, seconds since 1970."""
    port: int | None = None
    restarts: int = 0

    @property
    def identity(self) -> Identity | None:
        """The process, if there is one."""
        return Identity(self.pid, self.started) if self.pid and self.started else None

    @property
    def alive(self) -> bool:
        """Whether its process runs now."""
        return self.identity is not None and self.identity.alive


class StackRecord(BaseModel):
    """One stack."""

    pid: int
    started: str
    phase: Phase
    step: str = ""
    """What is being done while it starts."""
    gateway_url: str = ""
    children: list[ChildRecord] = []
    notes: list[str] = []
    """Stand-ins and what is absent, in words."""

    @property
    def supervisor(self) -> Identity:
        """The process that supervises."""
        return Identity(self.pid, self.started)

    @property
    def complete(self) -> bool:
        """Whether everything is up and watched over."""
        return (
            self.phase == "ready"
            and self.supervisor.alive
            and all(child.state == "ready" and child.alive for child in self.children)
        )


def read(layout: Layout) -> StackRecord | None:
    """The record of the stack's last start; None when it was never started.

    Args:
        layout: Which stack.
    """
    try:
        return StackRecord.model_validate_json(layout.state_file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write(layout: Layout, record: StackRecord) -> None:
    """Replace the record.

    Args:
        layout: Which stack.
        record: Its new state.
    """
    content: dict[str, Any] = record.model_dump()
    write_private(layout.state_file, json.dumps(content, indent=2) + "\n")


@contextmanager
def supervision(layout: Layout) -> Iterator[bool]:
    """The right to supervise this stack, held by one process at a time and given back however that ends.

    Args:
        layout: Which stack.

    Yields:
        Whether it was free.
    """
    with layout.lock_file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def end_leftovers(layout: Layout, *, seconds: float = 30) -> list[str]:
    """End what a supervisor that died has left; usually nothing, since children die with it.

    Args:
        layout: Which stack; its supervision must be held.
        seconds: Time to stop in, before force.

    Returns:
        Names of what was still running.
    """
    record = read(layout)
    if record is None:
        return []
    left = [child for child in record.children if child.alive]
    for child in left:
        if child.identity:
            child.identity.send(signal.SIGINT if child.name == "postgres" else signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while any(child.alive for child in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    for child in left:
        if child.identity:
            child.identity.send(signal.SIGKILL, group=True)
    return [child.name for child in left]
