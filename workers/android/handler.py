"""Runs one command on one phone that this worker holds, and says what follows when it does not succeed."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from typing import Protocol

from contracts.android.command import AndroidExecute
from contracts.errors import CommandError, Deferred, ErrorCode, Expired, Permanent, Transient
from workers.android.adb.states import LOOK_AGAIN_SECONDS
from workers.android.monitor.devices import Transport
from workers.android.runner import run_action
from workers.android.session import ScreenMemory
from workers.handler import Command, Outcome, StoredArtifact, Usage

_MARGIN_SECONDS = 0.25
"""Kept back from the deadline, so that what became of the action is said by this handler and not by a cancellation."""
_LONGEST_BLOCK_SECONDS = 30.0
"""A command that fails for the time being blocks its phone: it is tried again sooner than in other pools."""
_UNANSWERED = frozenset({ErrorCode.TIMEOUT, ErrorCode.DEVICE_OFFLINE, ErrorCode.ADB_SERVER_DOWN})

ReadArtifact = Callable[[str, str], Awaitable[StoredArtifact | None]]
"""`(owner, sha256)` to what is stored; None when the owner has no such artifact."""


class HeldPhone(Protocol):
    """A phone that this worker may use."""

    @property
    def serial(self) -> str:
        """Its `ro.serialno`."""

    def opened(self, *, patience_seconds: float) -> AbstractAsyncContextManager[tuple[Transport, str | None]]:
        """Have the phone to oneself: yields the way to it, and the fence that each line must carry.

        Args:
            patience_seconds: How long a phone is waited for that is connected, but answers nothing.

        Raises:
            Deferred: It is not ready, or may be another worker's; nothing was sent.
            Permanent: It answered nothing for so long; nothing was sent.
        """

    def answered(self) -> None:
        """A command got its answer from the phone."""

    def unanswered(self) -> None:
        """A command did not."""

    def refused(self) -> None:
        """The phone knows another holder, or none: nothing was done."""


RunOnPhone = Callable[[HeldPhone, Command[AndroidExecute]], Awaitable[Outcome]]


def build(*, artifacts: ReadArtifact, artifact_limit_bytes: int) -> RunOnPhone:
    """How a command is run on a phone.

    Args:
        artifacts: Reads what an owner has stored, for actions that put it on a phone.
        artifact_limit_bytes: The largest picture or file that is taken from a phone.
    """
    screens: dict[str, ScreenMemory] = {}

    async def run_on(phone: HeldPhone, command: Command[AndroidExecute]) -> Outcome:
        patience_seconds = min(command.payload.timeout_seconds, _seconds_left(command))
        async with AsyncExitStack() as stack:
            async with command.cancellation.interruptible():
                transport, fence = await stack.enter_async_context(phone.opened(patience_seconds=patience_seconds))
            started = time.monotonic()
            try:
                reading = await run_action(
                    transport,
                    command.payload.root,
                    deadline=started + _seconds_left(command),
                    fence=fence,
                    artifact_limit_bytes=artifact_limit_bytes,
                    fetch=lambda sha256: artifacts(command.owner, sha256),
                    screen=screens.setdefault(phone.serial, ScreenMemory()),
                    cancellation=command.cancellation,
                )
            except CommandError as error:
                _tell(phone, error)
                raise _settled(error, attempt=command.attempt, serial=phone.serial) from error
        phone.answered()
        facts = {
            "device": phone.serial,
            "action": command.payload.root.action,
            "duration_ms": round(1000 * (time.monotonic() - started), 1),
        }
        return Outcome(facts | reading.output, artifacts=reading.artifacts, usage=Usage(target=phone.serial))

    return run_on


def _tell(phone: HeldPhone, error: CommandError) -> None:
    cause = error.details.get("cause", error.code)
    if error.code is ErrorCode.DEVICE_BUSY or cause == ErrorCode.DEVICE_BUSY:
        phone.refused()
    elif cause in _UNANSWERED:
        phone.unanswered()
    else:
        phone.answered()


def _settled(error: CommandError, *, attempt: int, serial: str) -> CommandError:
    """What becomes of the command.

        the phone took longer than the action may        -> failed: its sender set that limit
        the phone knows another holder, nothing was done -> waits, and no attempt is spent
        another passing error                            -> tried again; the phone waits with it

    Args:
        error: What the run raised.
        attempt: Which run it was; first is 1.
        serial: The phone.
    """
    settled = error
    if isinstance(error, Transient):
        details = {**error.details, "device": serial}
        if error.code is ErrorCode.TIMEOUT:
            settled = Permanent(error.code, error.message, details=details)
        elif error.code is ErrorCode.DEVICE_BUSY:
            settled = Deferred(error.code, error.message, retry_after_seconds=LOOK_AGAIN_SECONDS, details=details)
        elif error.retry_after_seconds is None:
            wait_seconds = min(2.0 ** (attempt - 1), _LONGEST_BLOCK_SECONDS)
            settled = Transient(error.code, error.message, retry_after_seconds=wait_seconds, details=details)
    settled.details.setdefault("device", serial)
    settled.spent = Usage(target=serial)
    return settled


def _seconds_left(command: Command[AndroidExecute]) -> float:
    left_seconds = (command.deadline_at - datetime.now(UTC)).total_seconds() - _MARGIN_SECONDS
    if left_seconds <= 0:
        raise Expired(ErrorCode.DEADLINE_PASSED, "the command's deadline passed before anything was sent to a phone")
    return left_seconds
