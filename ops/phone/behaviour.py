"""How the simulated phone misbehaves, and the small control port on which that is changed while it runs.

One JSON object a line in, the whole behaviour as one JSON object a line back (or `{"error": …}`):

    {"authorized": false}      the key is never accepted: `unauthorized`
    {"present": false}         vanishes: connections are reset and none is accepted
    {"answer": "hang"}         commands are accepted and never run
    {}                         just read it
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Behaviour(BaseModel):
    """What the phone does with connections and commands; the defaults are a healthy phone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    authorized: bool = True
    present: bool = True
    answer: Literal["normal", "hang_open", "hang", "black_hole", "lost"] = "normal"
    """`hang_open` never accepts a command, `hang` accepts and never runs it, `black_hole` stops reading altogether,
    `lost` runs it and drops the connection before answering."""
    latency_seconds: float = Field(default=0, ge=0, le=3600)
    """Between a command's effect and its answer."""
    drip_seconds: float = Field(default=0, ge=0, le=3600)
    """With more than 0, output comes one byte at a time, this far apart."""
    screencap: Literal["normal", "garbage", "truncated", "warned"] = "normal"
    """`warned` puts the line that phones with several displays print before the picture."""
    injects_input: bool = True
    """False refuses `input`, as some vendors do until a developer option is on."""


class Control:
    """Holds the behaviour and wakes whoever waits for it to change."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self._changed = asyncio.Event()

    def change(self, **changes: Any) -> Behaviour:
        """Change some fields.

        Raises:
            ValidationError: No such field, or not a value of it.
        """
        self.behaviour = Behaviour.model_validate(self.behaviour.model_dump() | changes)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return self.behaviour

    async def until(self, holds: Callable[[Behaviour], bool]) -> None:
        """Return once the condition holds; at once when it does."""
        while not holds(self.behaviour):
            await self._changed.wait()


@asynccontextmanager
async def serving_control(control: Control, *, port: int) -> AsyncIterator[int]:
    """Serve the control port on loopback; yields the port, which is a free one for 0."""
    server = await asyncio.start_server(lambda reader, writer: _serve(control, reader, writer), "127.0.0.1", port)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _serve(control: Control, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async for line in reader:
            writer.write(_answer(control, line) + b"\n")
            await writer.drain()
    except (ConnectionError, ValueError):
        return  # it went away, or sent a line beyond the reader's limit
    finally:
        writer.close()


def _answer(control: Control, line: bytes) -> bytes:
    try:
        changes = json.loads(line)
        if not isinstance(changes, dict):
            return json.dumps({"error": "not a JSON object"}).encode()
        return control.change(**changes).model_dump_json().encode()
    except ValidationError as error:
        return json.dumps({"error": str(error)}).encode()
    except ValueError:
        return json.dumps({"error": "not JSON"}).encode()


async def control_phone(port: int, **changes: Any) -> Behaviour:
    """Change the behaviour of a running phone; with no changes, read it.

    Args:
        port: Its control port on 127.0.0.1.
        changes: Fields of Behaviour.

    Raises:
        ValueError: The phone refused the change.
    """
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(json.dumps(changes).encode() + b"\n")
            answer = json.loads(await reader.readline())
        finally:
            writer.close()
            await writer.wait_closed()
    if "error" in answer:
        raise ValueError(answer["error"])
    return Behaviour.model_validate(answer)
