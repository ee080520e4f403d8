"""Lets the owner of a running command stop it: where it may be interrupted, and what it ends with.

A request comes with a heartbeat (`workers.store.heartbeat`). It interrupts what stands inside `interruptible`, at once; beside
that it takes effect where `check` is called, so that an effect which must not be cut in two is finished first.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from contracts.errors import Cancelled, ErrorCode

_SENTENCE = "cancelled by its owner while it ran"


class Cancellation:
    """Whether one run is to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._scopes: list[asyncio.Timeout] = []

    def request(self) -> None:
        """Stop the run as soon as it can be."""
        if self.requested:
            return
        self.requested = True
        for scope in self._scopes:
            _end(scope)

    def check(self) -> None:
        """Go no further when that was asked for.

        Raises:
            Cancelled: It was.
        """
        if self.requested:
            raise cancelled()

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """What the block does may be broken off anywhere.

        Raises:
            Cancelled: It was broken off, or was not begun.
        """
        self.check()
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.append(scope)
                try:
                    yield
                finally:
                    self._scopes.remove(scope)
        except TimeoutError:
            if scope.expired():
                raise cancelled() from None
            raise


def cancelled() -> Cancelled:
    """What a run ends with that its owner has stopped."""
    return Cancelled(ErrorCode.CANCELLED, _SENTENCE)


def _end(scope: asyncio.Timeout) -> None:
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())
