"""One process of the stack: started in a session of its own, watched, stopped with everything it started.

    starting ──► ready ──► restarting ──► starting ...        a crash, with back-off (see supervisor.py)
        │          │
        └──────────┴─────► stopped                            asked for

A child dies with the process that started it (the kernel sends its stop signal), and is remembered by pid and start
time, so that a pid used again by something else is never signalled.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from contracts.settings import child_environment
from ops.stack.errors import StackError
from ops.stack.identity import Identity
from ops.stack.probes import port_is_free

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_EPITAPHS = ("Erlang has closed", "Crash dump is being written")
"""Parts of lines that a service's helper programs write because it has ended: they never say why."""


def environment(extra: Mapping[str, str], *, without: str = "ISH_") -> dict[str, str]:
    """The environment for a service: this process's own, without our settings and without the service's.

    Args:
        extra: Variables to set.
        without: Prefix of the service's own variables, which a person may have set for another instance of it.
    """
    inherited = child_environment({})
    return {**{name: value for name, value in inherited.items() if not name.startswith(without)}, **extra}


class RunAs(Protocol):
    """The user a child runs as."""

    @property
    def pw_uid(self) -> int:
        """Its user id."""

    @property
    def pw_gid(self) -> int:
        """Its group id."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What to start and how to know that it is ready."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log_file: Path
    ready: Callable[[], bool]
    listens: tuple[tuple[str, int], ...] = ()
    """Addresses that must be free before it starts."""
    port_setting: str = "ISH_PORT_OFFSET"
    """What to change when one of them is not."""
    run_as: RunAs | None = None
    folder: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    start_seconds: float = 60
    stop_seconds: float = 20


@dataclass(slots=True)
class Child:
    """A running (or stopped, or crashed) instance of a spec."""

    spec: Spec
    _popen: subprocess.Popen[bytes] | None = field(default=None, init=False)
    identity: Identity | None = field(default=None, init=False)
    started_at: float = field(default=0.0, init=False)
    """When it was last started, as time.time()."""

    def spawn(self) -> None:
        """Start it and return at once.

        Raises:
            StackError: A port it needs is taken, or its program cannot be executed.
        """
        for host, port in self.spec.listens:
            if not port_is_free(host, port):
                message = (
                    f"port {port} on {host} is in use, and {self.spec.name} needs it: stop what listens there, "
                    f"or set {self.spec.port_setting}"
                )
                raise StackError(message)
        user = self.spec.run_as
        with self.spec.log_file.open("ab") as log:
            try:
                self._popen = subprocess.Popen(
                    self.spec.argv,
                    env=dict(self.spec.environment),
                    cwd=self.spec.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=user.pw_uid if user else None,
                    group=user.pw_gid if user else None,
                    extra_groups=[] if user else None,
                    preexec_fn=die_with(os.getpid(), self.spec.stop_signal),  # noqa: PLW1509  # started from the main thread only
                )
            except OSError as error:
                message = f"{self.spec.name} cannot be started: {error.strerror}: {self.spec.argv[0]}"
                raise StackError(message) from error
        self.identity = Identity.of(self._popen.pid)
        self.started_at = time.time()

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            StackError: As `spawn` and `wait_ready` do.
        """
        self.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it is ready.

        Raises:
            StackError: It ended or was not ready in time; the message carries its last words.
        """
        deadline = time.monotonic() + self.spec.start_seconds
        while not self.spec.ready():
            if not self.running:
                raise StackError(self.last_words(f"{self.spec.name} ended with status {self.exit_status}"))
            if time.monotonic() > deadline:
                self.kill()
                message = f"{self.spec.name} was not ready within {self.spec.start_seconds:.0f} s"
                raise StackError(self.last_words(message))
            time.sleep(0.05)

    @property
    def running(self) -> bool:
        """Whether its process lives; one that has ended is reaped, and what it left of its group is ended."""
        popen = self._popen
        if popen is None or popen.returncode is not None:
            return False
        if os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return True
        self._end_group()  # before the reaping, while its pid cannot be anybody else's
        popen.wait()
        self._await_group(popen.pid)
        return False

    @property
    def exit_status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs or before it was started."""
        return self._popen.returncode if self._popen else None

    def send(self, number: signal.Signals) -> None:
        """Signal its process alone.

        Args:
            number: The signal.
        """
        if self.running and self._popen is not None:
            self._popen.send_signal(number)

    def send_group(self, number: signal.Signals) -> None:
        """Signal its process and everything in its process group.

        Args:
            number: The signal.
        """
        if self.running and self.identity is not None:
            os.killpg(self.identity.pid, number)

    def stop(self) -> None:
        """Ask it to stop, wait, and end by force what is left."""
        self.send(self.spec.stop_signal)
        self.wait(self.spec.stop_seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to it and to everything in its process group."""
        if self.running:
            self._end_group()
            self.wait(self.spec.stop_seconds)

    def wait(self, seconds: float) -> bool:
        """Wait for its end.

        Args:
            seconds: At the most.

        Returns:
            Whether it has ended.
        """
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.running

    def last_words(self, sentence: str) -> str:
        """A sentence extended by the last line of the log that can say why, and where to read more.

        Args:
            sentence: What happened.
        """
        try:
            lines = self.spec.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        lines = [line for line in lines if line.strip() and not any(epitaph in line for epitaph in _EPITAPHS)]
        said = f": {lines[-1].strip()[:300]}" if lines else ""
        return f"{sentence}{said} (log: {self.spec.log_file})"

    def _end_group(self) -> None:
        if self._popen is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    def _await_group(self, group: int) -> None:
        """Wait until the last of its group is gone: a dying member may still hold a port."""
        deadline = time.monotonic() + self.spec.stop_seconds
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                os.killpg(group, 0)
                time.sleep(0.01)


def stop_together(children: Sequence[Child]) -> None:
    """Ask all to stop, last started first, then wait for each.

    Args:
        children: In the order they were started.
    """
    for child in reversed(children):
        child.send(child.spec.stop_signal)
    deadline = time.monotonic() + max((child.spec.stop_seconds for child in children), default=0)
    for child in reversed(children):
        child.wait(max(0.0, deadline - time.monotonic()))
        child.kill()


def die_with(parent: int, stop_signal: signal.Signals) -> Callable[[], None]:
    """What a process calls first, so that the kernel signals it when its parent ends.

    Args:
        parent: Its pid; a process whose parent is another by then ends at once.
        stop_signal: The signal.
    """

    def in_child() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return in_child
