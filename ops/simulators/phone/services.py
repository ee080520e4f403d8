"""What a stream of the adb connection is opened for: a command line (`shell:`, `exec:`) or file transfers (`sync:`)."""

import asyncio
from collections.abc import Awaitable, Callable

from ops.simulators.phone import wire
from ops.simulators.phone.device import Device
from ops.simulators.phone.interpreter import run
from ops.simulators.phone.streams import Source
from ops.simulators.phone.sync import SyncSession

KNOWN = ("shell", "exec", "sync")
_KEPT_BYTES = 256 * 1024
_DRIP_SECONDS = 0.5
_DROP = b"."


class Stream:
    """One stream that the host opened: output is sent in turns, each acknowledged before the next; input is kept.

    Args:
        send: Sends one piece to the host.
        max_payload_bytes: Of one piece.
    """

    def __init__(self, send: Callable[[bytes], Awaitable[None]], *, max_payload_bytes: int) -> None:
        self.acknowledged = asyncio.Event()
        self._send = send
        self._piece_bytes = min(_KEPT_BYTES, max_payload_bytes)
        self._fed: asyncio.Queue[bytes] = asyncio.Queue()

    def feed(self, content: bytes) -> None:
        """Keep what the host sent."""
        self._fed.put_nowait(content)

    async def read(self) -> bytes:
        """The next piece of what the host sent."""
        return await self._fed.get()

    async def write(self, content: bytes) -> None:
        """Send output."""
        for start in range(0, len(content), self._piece_bytes):
            self.acknowledged.clear()
            await self._send(content[start : start + self._piece_bytes])
            await self.acknowledged.wait()


async def serve(device: Device, service: str, stream: Stream) -> bool:
    """Do what the stream was opened for.

    Args:
        device: The phone.
        service: As the host asked for it, such as `shell,v2,raw:id`.
        stream: The open stream.

    Returns:
        Whether the host is told that it is over; else the connection is to be dropped.
    """
    behaviour = device.behaviour
    if behaviour.answer == "hang":
        await device.control.until(lambda now: now.answer != "hang")
        return True
    name, _, line = service.partition(":")
    output = _Output(stream, framed="v2" in name.split(","), drip_seconds=behaviour.drip_seconds)
    if name == "sync":
        await SyncSession(device, Source(more=stream.read), output.stdout).serve()
    else:
        stdin = Source(more=_Unframed(stream).read if output.framed else stream.read)
        output.exit_code = await run(device, line, stdin=stdin, out=output.stdout, err=output.stderr)
    match device.behaviour.answer:
        case "lost":
            return False
        case "vanish":
            device.control.change(answer="normal", present=False)
            return False
        case "drip":
            await output.drip_for_ever(behaviour.drip_seconds or _DRIP_SECONDS)
        case _:
            pass
    await output.finish()
    return True


class _Output:
    """What a service prints, as frames of `shell_v2` or as it is."""

    def __init__(self, stream: Stream, *, framed: bool, drip_seconds: float) -> None:
        self.framed = framed
        self.stdout = _Part(self, wire.SHELL_STDOUT)
        self.stderr = _Part(self, wire.SHELL_STDERR)
        self.exit_code: int | None = None
        self._stream = stream
        self._drip_seconds = drip_seconds
        self._kept: list[tuple[int, bytes]] = []
        self._kept_bytes = 0

    def keep(self, kind: int, content: bytes) -> None:
        if content:
            self._kept.append((kind, content))
            self._kept_bytes += len(content)

    async def drain(self) -> None:
        if self._kept_bytes >= _KEPT_BYTES or self._drip_seconds:
            await self.flush()

    async def finish(self) -> None:
        """Send what is left, and the exit code."""
        ending = b""
        if self.framed and self.exit_code is not None:
            ending = wire.shell_frame(wire.SHELL_EXIT, bytes([self.exit_code]))
        await self.flush(ending)

    async def drip_for_ever(self, seconds: float) -> None:
        """Send byte after byte until the host has had enough."""
        await self.flush()
        while True:
            await self._stream.write(self._framed(wire.SHELL_STDOUT, _DROP))
            await asyncio.sleep(seconds)

    async def flush(self, ending: bytes = b"") -> None:
        """Send what is kept, and something after it."""
        kept, self._kept, self._kept_bytes = self._kept, [], 0
        if not self._drip_seconds:
            await self._stream.write(b"".join(self._framed(kind, content) for kind, content in kept) + ending)
            return
        for kind, content in kept:
            for place in range(len(content)):
                await self._stream.write(self._framed(kind, content[place : place + 1]))
                await asyncio.sleep(self._drip_seconds)
        await self._stream.write(ending)

    def _framed(self, kind: int, content: bytes) -> bytes:
        if not self.framed:
            return content
        pieces = (content[start : start + _KEPT_BYTES] for start in range(0, len(content), _KEPT_BYTES))
        return b"".join(wire.shell_frame(kind, piece) for piece in pieces)


class _Part:
    """The output or the error output of a service."""

    def __init__(self, output: _Output, kind: int) -> None:
        self._output = output
        self._kind = kind

    def write(self, content: bytes) -> None:
        self._output.keep(self._kind, content)

    async def drain(self) -> None:
        await self._output.drain()

    async def flush(self) -> None:
        await self._output.flush()


class _Unframed:
    """The input of a `shell_v2` stream, taken out of its frames."""

    def __init__(self, stream: Stream) -> None:
        self._frames = Source(more=stream.read)

    async def read(self) -> bytes:
        """The next piece of input; empty once the host has closed it."""
        while True:
            header = await self._frames.read_exactly(wire.SHELL_HEADER.size)
            kind, size_bytes = wire.SHELL_HEADER.unpack(header)
            content = await self._frames.read_exactly(size_bytes)
            if kind == wire.SHELL_STDIN and content:
                return content
            if kind == wire.SHELL_CLOSE_STDIN:
                return b""
