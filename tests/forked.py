"""Starts the product's processes from one that has imported it already: tests start hundreds, and imports cost most of it.

Each is a process of its own all the same, runs the same `python -m …` from its first line, and can be killed, stopped and
waited for. That a program starts from nothing is for the tests of the stack to show.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from typing_extensions import override

from ops.stack.child import Child, Spec, die_with
from ops.stack.identity import Identity

_PRELOADED = [
    "gateway.app",
    "gateway.container",
    "ops.simulators.phone.fleet",
    "ops.simulators.provider.server",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
    "workers.pools.ai",
    "workers.android.handler",
    "workers.store.artifacts",
    "workers.pools.outbox",
    "workers.pools.android",
    "workers.pools.serve",
]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_PRELOADED)


def warm_up() -> None:
    """Let the process that is forked begin with its imports, without waiting for it."""
    forkserver.ensure_running()


class Forked(Child):
    """A child whose spec is `python -m MODULE …`.

    Args:
        spec: What to run.
    """

    __slots__ = ("_process",)

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._process: ForkServerProcess | None = None

    @override
    def spawn(self) -> None:
        """Start it and return at once."""
        python, flag, module, *arguments = self.spec.argv
        assert (python, flag) == (sys.executable, "-m"), self.spec.argv
        self.spec.log_file.touch(0o600)
        place = str(self.spec.folder or Path.cwd())
        self._process = _CONTEXT.Process(
            target=_become, args=(module, arguments, dict(self.spec.environment), str(self.spec.log_file), place)
        )
        self._process.start()
        assert self._process.pid is not None
        self.identity = Identity.of(self._process.pid)
        self.started_at = time.time()

    @property
    @override
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.exitcode is None

    @property
    @override
    def exit_status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs or before it was started."""
        return self._process.exitcode if self._process else None

    @override
    def send(self, number: signal.Signals) -> None:
        """Signal its process.

        Args:
            number: The signal.
        """
        if self.running and self.identity is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.identity.pid, number)

    @override
    def kill(self) -> None:
        """SIGKILL to it."""
        self.send(signal.SIGKILL)
        self.wait(self.spec.stop_seconds)


def _become(module: str, arguments: list[str], environment: dict[str, str], log_file: str, place: str) -> None:
    """Turn a fork into what `python -m module arguments` is."""
    os.setsid()
    die_with(os.getppid(), signal.SIGKILL)()
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
