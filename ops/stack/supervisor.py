"""Keeps the stack's processes running: starts them, restarts what crashed with back-off, stops them in reverse order.

                  ready() says yes
spawn ──► starting ──────────────► ready
             ▲  │ ended, or not ready in time │ ended
             │  ▼                             ▼
            restarting ◄──────────────────────┘      waits 0.5 s, 1 s, 2 s … 30 s; a minute of health resets that
"""

import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ops.stack import state as records
from ops.stack.child import Child, Spec, stop_together
from ops.stack.errors import StackError
from ops.stack.layout import Layout

_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0


@dataclass(slots=True)
class _Watched:
    child: Child
    batch: int
    state: records.ChildState = "starting"
    restarts: int = 0
    wait_seconds: float = _FIRST_WAIT_SECONDS
    due: float = 0.0
    """When restarting: start again then. When starting: be ready by then. On the monotonic clock."""
    ready_since: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """All processes of one stack."""

    layout: Layout
    say: Callable[[str], None]
    record: records.StackRecord
    revived: Callable[[str], None] = lambda _: None
    """Told the name of a process that is back after a crash."""
    _watched: list[_Watched] = field(default_factory=list, init=False)
    _batches: int = field(default=0, init=False)

    def spawn(self, specs: Iterable[Spec]) -> None:
        """Start processes without waiting for them; those of one call are also stopped together.

        Args:
            specs: In the order to start them.

        Raises:
            StackError: A port is taken or a program is missing.
        """
        self._batches += 1
        for spec in specs:
            watched = _Watched(Child(spec), self._batches)
            self._watched.append(watched)
            watched.child.spawn()
            watched.due = time.monotonic() + spec.start_seconds
            self.save()

    def wait_ready(self, *names: str) -> None:
        """Wait until these are ready; all that were spawned, when none is named.

        Args:
            names: Of specs; one that was not spawned is no matter.

        Raises:
            StackError: One ended or was not ready in time.
        """
        for watched in self._watched:
            if watched.state == "starting" and (not names or watched.child.spec.name in names):
                watched.child.wait_ready()
                self._became_ready(watched)

    def forget(self, name: str) -> None:
        """Stop a process and supervise it no longer.

        Args:
            name: Of its spec.
        """
        for watched in [each for each in self._watched if each.child.spec.name == name]:
            watched.child.stop()
            self._watched.remove(watched)
        self.save()

    def tick(self) -> None:
        """Look after every process once; call it a few times a second."""
        for watched in self._watched:
            before = watched.state
            self._look_after(watched)
            if watched.state != before:
                self.save()

    def hurry(self) -> None:
        """Start now what waits for its restart."""
        for watched in self._watched:
            if watched.state == "restarting":
                watched.due = 0.0

    def stop(self) -> None:
        """Stop everything, the batch started last first; what hangs is ended by force."""
        self.record.phase = "stopping"
        self.save()
        for batch in range(self._batches, 0, -1):
            members = [watched for watched in self._watched if watched.batch == batch]
            stop_together([watched.child for watched in members])
            for watched in members:
                watched.state = "stopped"
            self.save()

    def kill(self) -> None:
        """End everything at once."""
        for watched in reversed(self._watched):
            watched.child.kill()

    def save(self) -> None:
        """Write down how things are."""
        self.record.children = [_record(watched) for watched in self._watched]
        records.write(self.layout, self.record)

    def _look_after(self, watched: _Watched) -> None:
        child, now = watched.child, time.monotonic()
        name = child.spec.name
        if watched.state == "ready":
            if not child.running:
                if now - watched.ready_since > _HEALTHY_SECONDS:
                    watched.wait_seconds = _FIRST_WAIT_SECONDS
                self._schedule(watched, f"{name} {_ending(child.exit_status)}")
        elif watched.state == "restarting":
            if now >= watched.due:
                self._restart(watched)
        elif not child.running:
            self._schedule(watched, child.last_words(f"{name} {_ending(child.exit_status)} before it was ready"))
        elif child.spec.ready():
            self._became_ready(watched)
            self.say(f"{name} is back")
            self.revived(name)
        elif now > watched.due:
            child.kill()
            self._schedule(watched, f"{name} was not ready within {child.spec.start_seconds:.0f} s")

    def _restart(self, watched: _Watched) -> None:
        watched.restarts += 1
        try:
            watched.child.spawn()
        except StackError as error:
            self._schedule(watched, str(error))
            return
        watched.state = "starting"
        watched.due = time.monotonic() + watched.child.spec.start_seconds

    def _schedule(self, watched: _Watched, reason: str) -> None:
        self.say(f"{reason}; starting it again in {watched.wait_seconds:g} s")
        watched.state = "restarting"
        watched.due = time.monotonic() + watched.wait_seconds
        watched.wait_seconds = min(watched.wait_seconds * 2, _LONGEST_WAIT_SECONDS)

    def _became_ready(self, watched: _Watched) -> None:
        watched.state = "ready"
        watched.ready_since = time.monotonic()
        self.save()


def _record(watched: _Watched) -> records.ChildRecord:
    child = watched.child
    identity = child.identity if child.running else None
    return records.ChildRecord(
        name=child.spec.name,
        state=watched.state,
        pid=identity.pid if identity else None,
        started=identity.started if identity else None,
        since=child.started_at,
        port=child.spec.listens[0][1] if child.spec.listens else None,
        restarts=watched.restarts,
    )


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
