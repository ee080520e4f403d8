"""What `ish run`, `up`, `down` and `status` do: supervise here, in the background, or find the one that does."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from contracts.settings import Settings
from ops.stack import log_files, state
from ops.stack.console import Console
from ops.stack.errors import StackError
from ops.stack.layout import Layout
from ops.stack.stack import Stack

_TICK_SECONDS = 0.2
_LIMIT_EVERY_TICKS = 50
_START_SECONDS = 900
"""Longest wait for a start elsewhere: the first one downloads the services."""
_STOP_SECONDS = 120


class StopAsked(BaseException):
    """Ctrl-C, a request to end, or a closed terminal; not an Exception, so that nothing on the way swallows it."""


def supervise(
    layout: Layout,
    settings: Settings,
    console: Console,
    *,
    workers: Mapping[str, int],
    when_ready: Callable[[], None],
) -> None:
    """Run the stack in this process until it is asked to stop; or follow the one that runs already.

    Args:
        layout: Which stack.
        settings: For its processes.
        console: Where to say what happens.
        workers: Processes per pool.
        when_ready: Called once it is ready.

    Raises:
        StackError: It cannot start.
    """
    layout.create()
    with state.supervision(layout) as free:
        if free:
            _supervise_here(Stack(layout, settings, console, workers), when_ready)
            return
    _bring_back(layout, console)
    when_ready()
    console.say("It runs in another process and goes on running: Ctrl-C ends only this view of its logs.")
    record = state.read(layout)
    with _stop_on_signals():
        try:
            _follow(layout, console, lambda: None, lambda: bool(record and not record.supervisor.alive))
        except StopAsked:
            return


def detach(layout: Layout, console: Console, *, arguments: list[str]) -> None:
    """Have a background process run the stack; returns when it is ready.

    Args:
        layout: Which stack.
        console: Where to say what happens.
        arguments: For `ish up` in the background.

    Raises:
        StackError: It ended or did not become ready.
    """
    layout.create()
    with state.supervision(layout) as free:
        running = not free
    if running:
        _bring_back(layout, console)
        return
    log = layout.logs_dir / "stack.log"
    with log.open("wb") as output:
        background = subprocess.Popen(
            [sys.executable, "-m", "ops", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ended() -> str | None:
        if background.poll() is None:
            return None
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].removeprefix("ish: ") if lines else f"it ended at once (log: {log})"

    _wait_complete(layout, console, background.pid, ended)
    background.returncode = 0  # it goes on without us: nothing to warn about


def down(layout: Layout, console: Console) -> None:
    """Stop the stack, whoever started it.

    Args:
        layout: Which stack.
        console: Where to say what happens.

    Raises:
        StackError: It does not stop.
    """
    record = state.read(layout) if layout.state_dir.exists() else None
    if record is None:
        console.say("nothing runs here")
        return
    supervised = record.supervisor.alive
    if supervised:
        with console.step("stopping"):
            record.supervisor.send(signal.SIGTERM)
            if not record.supervisor.wait(_STOP_SECONDS):
                message = f"the supervisor (pid {record.pid}) does not stop: look at {layout.logs_dir}"
                raise StackError(message)
    with state.supervision(layout) as free:
        left = state.end_leftovers(layout) if free else []
    if left:
        console.say(f"ended what a dead supervisor had left: {', '.join(left)}")
    console.say("stopped" if supervised or left else "nothing runs here")


def _supervise_here(stack: Stack, when_ready: Callable[[], None]) -> None:
    layout, console, supervisor = stack.layout, stack.console, stack.supervisor
    left = state.end_leftovers(layout)
    if left:
        console.say(f"ended what a dead supervisor had left: {', '.join(left)}")
    with _stop_on_signals() as stop_later:
        try:
            signal.signal(signal.SIGUSR1, lambda *_: supervisor.hurry())
            stack.start()
            when_ready()
            _follow(layout, console, supervisor.tick, lambda: False)
        except StopAsked:
            console.say("stopping")
        finally:
            stop_later(supervisor.kill)
            supervisor.stop()
    console.say("stopped")


def _follow(layout: Layout, console: Console, tick: Callable[[], None], over: Callable[[], bool]) -> None:
    """Show the log lines of our processes until StopAsked, or until it is over."""
    record = state.read(layout)
    own = {"rabbitmq", "epmd", "postgres", "redis", "adb"}
    names = [child.name for child in record.children if child.name not in own] if record else []
    followed = [log_files.Followed(name, layout.logs_dir / f"{name}.log") for name in names]
    ticks = 0
    while not over():
        tick()
        for each in followed:
            for line in each.new_lines():
                console.line(each.name, line)
        ticks += 1
        if ticks % _LIMIT_EVERY_TICKS == 0:
            for path in layout.logs_dir.glob("*.log"):
                log_files.limit(path)
        time.sleep(_TICK_SECONDS)


def _bring_back(layout: Layout, console: Console) -> None:
    record = state.read(layout)
    if record is None or not record.supervisor.alive:
        raise StackError("another start or stop of this stack is under way: try again in a moment")
    missing = [child.name for child in record.children if child.state != "ready" or not child.alive]
    if record.phase == "ready" and missing:
        console.say(f"already running (pid {record.pid}); bringing back {', '.join(missing)}")
        record.supervisor.send(signal.SIGUSR1)
    else:
        console.say(f"already running (pid {record.pid})")

    def ended() -> str | None:
        return None if record.supervisor.alive else f"it stopped: look at {layout.logs_dir}"

    _wait_complete(layout, console, record.pid, ended)


def _wait_complete(layout: Layout, console: Console, pid: int, ended: Callable[[], str | None]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    said = ""
    while time.monotonic() < deadline:
        record = state.read(layout)
        reason = ended()
        if reason is not None:
            raise StackError(reason)
        if record is not None and record.pid == pid:
            if record.complete:
                return
            if record.step and record.step != said:
                said = record.step
                console.say(f"{said} ...")
        time.sleep(0.1)
    message = f"not ready after {_START_SECONDS} s: look at {layout.logs_dir}"
    raise StackError(message)


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[Callable[[], None]], None]]:
    """The first of the stop signals raises StopAsked; what is yielded decides what a later one does."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def first(number: int, frame: FrameType | None) -> None:
        del number, frame
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise StopAsked

    def later(action: Callable[[], None]) -> None:
        for each in numbers:
            signal.signal(each, lambda *_: action())

    before = {number: signal.signal(number, first) for number in numbers}
    try:
        yield later
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
