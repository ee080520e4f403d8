"""Where a program on the simulated phone reads and writes: the adb connection, a file, another program, or nothing."""

from collections.abc import Awaitable, Callable
from typing import Protocol

_PIECE_BYTES = 64 * 1024


class Sink(Protocol):
    """Takes output."""

    def write(self, content: bytes) -> None:
        """Take it; it may be kept until the next `drain`."""

    async def drain(self) -> None:
        """Wait until there is room for more; to be called between large pieces."""

    async def flush(self) -> None:
        """Pass on what was kept; to be called before waiting for something else."""


class Captured:
    """Keeps what is written, for a file or the next program of a pipe."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, content: bytes) -> None:
        """Keep it."""
        self.content += content

    async def drain(self) -> None:
        """There is always room."""

    async def flush(self) -> None:
        """Nothing is waiting for it."""


class Discarded:
    """`/dev/null`."""

    def write(self, content: bytes) -> None:
        """Forget it."""

    async def drain(self) -> None:
        """There is always room."""

    async def flush(self) -> None:
        """Nothing is waiting for it."""


class Source:
    """Gives input.

    Args:
        content: What it gives first.
        more: Asked for the rest, empty when there is no more; None when there is none.
    """

    def __init__(self, content: bytes = b"", more: Callable[[], Awaitable[bytes]] | None = None) -> None:
        self._held = bytearray(content)
        self._more = more

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        if not self._held and not await self._fill():
            return b""
        piece = bytes(self._held[:_PIECE_BYTES])
        del self._held[:_PIECE_BYTES]
        return piece

    async def read_exactly(self, size_bytes: int) -> bytes:
        """So many bytes; fewer when it ends before."""
        while len(self._held) < size_bytes and await self._fill():
            pass
        taken = bytes(self._held[:size_bytes])
        del self._held[:size_bytes]
        return taken

    async def read_line(self) -> bytes | None:
        """Up to and without the next line feed; what is left at the end; None when nothing is."""
        while b"\n" not in self._held and await self._fill():
            pass
        if not self._held:
            return None
        line, found, _ = bytes(self._held).partition(b"\n")
        del self._held[: len(line) + len(found)]
        return line

    async def read_all(self) -> bytes:
        """Everything to the end."""
        while await self._fill():
            pass
        content = bytes(self._held)
        self._held.clear()
        return content

    async def _fill(self) -> bool:
        if self._more is None:
            return False
        piece = await self._more()
        self._held += piece
        if not piece:
            self._more = None
        return bool(piece)
