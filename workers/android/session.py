"""One phone for the time of one action: sends every line fenced and in time, and remembers whether one had an effect.

The fence is a number in a file on the phone, written by whoever holds the phone. A line runs only if the number is still
its own, and the phone's shell itself checks that: a line that a worker sends after it was frozen, when another worker has
taken its phone over, does nothing.
"""

import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from contracts.errors import CommandError, ErrorCode, Indeterminate, Permanent, Transient
from workers.android.adb import files
from workers.android.adb.server import MAX_OUTPUT_BYTES, AdbFailure, AdbServer, ShellOutput
from workers.android.adb.states import BOOTING, not_ready
from workers.android.readings import failure, text_of
from workers.android.reasons import MAX_REASON_CHARACTERS
from workers.cancellation import Cancellation
from workers.handler import StoredArtifact

FENCE_FILE = "/data/local/tmp/ish.fence"
_BOOTED = "getprop sys.boot_completed"
_NO_SERVICE = re.compile(
    rb"\s*(cmd: )?Can't find service: |.{0,200}is the system running\?|.{0,200}no display is there yet"
)
_SEARCHED_BYTES = 1000
_CLEANING_SECONDS = 3.0
_FENCED_EXIT = 113
_FENCED = b"ish-fenced"

Check = Callable[[], None]
"""Raises a `CommandError` when nothing may be sent to the phone any more."""

FetchArtifact = Callable[[str], Awaitable[StoredArtifact | None]]
"""One of the owner's artifacts by its sha256; None when the owner has none such."""


class Transport(Protocol):
    """A connection from an adb server to a phone."""

    @property
    def server(self) -> AdbServer:
        """The server."""

    @property
    def serial(self) -> str:
        """What the server calls the phone."""


@dataclass(slots=True)
class ScreenMemory:
    """What is remembered of a phone's screen from one command to the next."""

    restless_until: float = 0.0
    """Until when it is taken to move too much for a full look; monotonic."""


class Session:
    """A phone, a deadline and a fence.

    Args:
        transport: The way to the phone.
        deadline: `time.monotonic()` at which everything must be over.
        fence: Number that the phone must hold in its fence file; None sends lines as they are.
        artifact_limit_bytes: The largest file or picture that is taken from the phone.
        fetch: Gets artifacts to put on the phone.
        check: Called right before anything is sent.
        screen: What is remembered of it from earlier commands; None remembers nothing.
        cancellation: Stops the action between two lines, and in the middle of one that may be repeated.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        deadline: float,
        fence: str | None,
        artifact_limit_bytes: int,
        fetch: FetchArtifact,
        check: Check | None = None,
        screen: ScreenMemory | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        if fence is not None and not (fence.isascii() and fence.isdigit()):
            raise ValueError("a fence is a string of digits")
        self._server = transport.server
        self._serial = transport.serial
        self._deadline = deadline
        self._fence = fence
        self._fetch = fetch
        self._check = check
        self._cancellation = cancellation or Cancellation()
        self.artifact_limit_bytes = artifact_limit_bytes
        self.touched = False
        """Whether something that must not happen twice may have happened."""
        self.screen = screen or ScreenMemory()
        self.unreadable = ""
        """Why the last look at the screen showed nothing, in the phone's words; empty when it did."""
        self.user: str | None = None
        """The phone's current user; None until it was asked."""

    @property
    def seconds_left(self) -> float:
        """Until the deadline; not below 0."""
        return max(0.0, self._deadline - time.monotonic())

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """An earlier deadline for what the block does."""
        outer = self._deadline
        self._deadline = min(outer, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._deadline = outer

    async def line(self, line: str, *, effect: bool, max_output_bytes: int = MAX_OUTPUT_BYTES) -> ShellOutput:
        """Run one command line on the phone.

        Args:
            line: Given to the phone's shell as it is; quote what is not yours.
            effect: Whether it does what must not be done twice.
            max_output_bytes: Output beyond this is cut off and the line is hung up.

        Raises:
            AdbFailure: There is no exit code to report.
            Transient: Another worker holds the phone; the line did nothing.
            Cancelled: Its owner wants no more; a line with an effect is finished first.
        """
        if effect:
            self._cancellation.check()
            try:
                output = await self._send(line, max_output_bytes)
            except AdbFailure as lost:
                self.touched |= lost.begun
                raise
        else:
            async with self._cancellation.interruptible():
                output = await self._send(line, max_output_bytes)
        if output.exit_code == _FENCED_EXIT and _FENCED in output.stderr and self._fence is not None:
            raise Transient(ErrorCode.DEVICE_BUSY, "another worker holds the phone by now; nothing was done")
        if _lacks_services(output):
            await self._wait_for_android()
        self.touched |= effect
        return output

    def check_cancelled(self) -> None:
        """Go no further when its owner wants it stopped.

        Raises:
            Cancelled: They do.
        """
        self._cancellation.check()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Nothing in the block is stopped by the command's owner."""
        cancellation, self._cancellation = self._cancellation, Cancellation()
        try:
            yield
        finally:
            self._cancellation = cancellation

    async def _send(self, line: str, max_output_bytes: int) -> ShellOutput:
        return await self._server.shell(
            self._serial,
            line if self._fence is None else _fenced(line, self._fence),
            timeout_seconds=self._time_to_send(),
            max_output_bytes=max_output_bytes,
        )

    async def _wait_for_android(self) -> None:
        """Have the action wait when the phone is starting: what a program says then is no answer.

        Raises:
            Deferred: Android is not there yet; the line did nothing.
        """
        booted = await self._server.shell(self._serial, _BOOTED, timeout_seconds=self._time_to_send())
        if booted.stdout.strip() != b"1":
            raise not_ready(self._serial, BOOTING)

    async def clean(self, line: str) -> None:
        """Run a line that puts in order what a failed action may have left; best effort, in a time of its own.

        Args:
            line: As for `line`; may be run again and again.
        """
        outer, self._deadline = self._deadline, time.monotonic() + _CLEANING_SECONDS
        try:
            with self.undisturbed():
                await self.line(line, effect=False)
        except (AdbFailure, CommandError):
            return  # the phone is gone, or another worker's
        finally:
            self._deadline = outer

    @property
    def fence(self) -> str | None:
        """The number that the phone must hold; no two holders have the same."""
        return self._fence

    async def write_file(self, path: str, content: StoredArtifact) -> None:
        """Write a file on the phone, piece by piece.

        Raises:
            AdbFailure: The phone went away or took too long.
            Permanent: It does not take the file.
        """
        await self._check_fence()
        try:
            async with self._cancellation.interruptible():
                await files.write_file(
                    self._server,
                    self._serial,
                    path,
                    content,
                    timeout_seconds=self._time_to_send(),
                    written_at=int(time.time()),
                )
        except files.FileRefused as refused:
            raise _refused(refused) from refused

    async def read_file(self, path: str) -> bytes:
        """A file of the phone, at most as large as an artifact may be.

        Raises:
            AdbFailure: The phone went away or took too long.
            Permanent: There is no such file, adb may not read it, or it is too large.
        """
        try:
            async with self._cancellation.interruptible():
                return await files.read_file(
                    self._server,
                    self._serial,
                    path,
                    timeout_seconds=self._time_to_send(),
                    limit_bytes=self.artifact_limit_bytes,
                )
        except files.FileRefused as refused:
            raise _refused(refused) from refused
        except files.FileTooLarge:
            sentence = f"the file is larger than the {self.artifact_limit_bytes} bytes that an artifact may have"
            raise Permanent(ErrorCode.TRUNCATED, sentence) from None

    async def artifact(self, sha256: str) -> StoredArtifact:
        """One of the owner's artifacts.

        Raises:
            Permanent: The owner has none such.
        """
        content = await self._fetch(sha256)
        if content is None:
            raise Permanent(ErrorCode.INVALID_PAYLOAD, f"you have no artifact {sha256}")
        return content

    def lost(self, failure: AdbFailure) -> CommandError:
        """What a missing answer means for the whole action.

            nothing that must not happen twice can have happened -> Transient, try again
            something may have                                   -> Indeterminate, a person looks at the phone

        Args:
            failure: What adb reported.
        """
        message = failure.message
        if failure.code is ErrorCode.TIMEOUT and self.unreadable and self.unreadable not in message:
            message = f"{message}; the screen could not be read: {self.unreadable}"
        if self.touched:
            return self._uncertain(failure.code, message)
        return Transient(failure.code, message, details={"cause": failure.code.value})

    def settled(self, error: CommandError) -> CommandError:
        """The same error, unless it would let an action be tried again of which a part has happened."""
        if isinstance(error, Transient) and self.touched:
            return self._uncertain(error.code, error.message)
        return error

    def _uncertain(self, code: ErrorCode, message: str) -> Indeterminate:
        sentence = f"the action may or may not have happened: {message}"
        return Indeterminate(ErrorCode.INDETERMINATE, sentence, details={"cause": code.value})

    async def _check_fence(self) -> None:
        if self._fence is not None:
            output = await self.line("true", effect=False)
            if output.exit_code:
                raise failure(output)

    def _time_to_send(self) -> float:
        if self._check is not None:
            self._check()
        seconds = self.seconds_left
        if seconds <= 0:
            raise AdbFailure(ErrorCode.TIMEOUT, "the time for this action is over")
        return seconds


def _lacks_services(output: ShellOutput) -> bool:
    """Whether the first thing that a line printed is what programs print while Android starts."""
    return any(_NO_SERVICE.match(printed[:_SEARCHED_BYTES]) is not None for printed in (output.stderr, output.stdout))


def _fenced(line: str, fence: str) -> str:
    return (
        f'if read f <{FENCE_FILE} && [ "$f" = {fence} ]; then {line}\n'
        f"else echo {_FENCED.decode()} >&2; exit {_FENCED_EXIT}; fi"
    )


def _refused(refused: files.FileRefused) -> Permanent:
    said = text_of(str(refused).encode(errors="replace")).strip()[:MAX_REASON_CHARACTERS]
    code = ErrorCode.DENIED if "denied" in said.lower() else ErrorCode.NONZERO_EXIT
    return Permanent(code, f"the phone refused the file: {said}")
