"""The control port on which the behaviour of running phones is changed.

One JSON object a line in, the phone's whole behaviour as one JSON object a line back (or `{"error": …}`):

    {"authorized": false}                         the key is never accepted: `unauthorized`
    {"phone": "SIMPHONE0007", "present": false}   with several phones, which one
    {}                                            just read it
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import ValidationError

from ops.simulators.phone.behaviour import Behaviour, Control

_ANSWER_SECONDS = 30


@asynccontextmanager
async def serving_control(controls: Mapping[str, Control], *, port: int) -> AsyncIterator[int]:
    """Serve the control port on loopback while the block runs.

    Args:
        controls: Those of the phones, by serial, or by name where several have one serial.
        port: On 127.0.0.1; 0 takes a free one.

    Yields:
        The port.
    """
    server = await asyncio.start_server(lambda reader, writer: _serve(controls, reader, writer), "127.0.0.1", port)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _serve(controls: Mapping[str, Control], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async for line in reader:
            writer.write(_answer(controls, line) + b"\n")
            await writer.drain()
    except (ConnectionError, ValueError):
        return  # it went away, or sent a line beyond the reader's limit
    finally:
        writer.close()


def _answer(controls: Mapping[str, Control], line: bytes) -> bytes:
    try:
        changes = json.loads(line)
        if not isinstance(changes, dict):
            return _refusal("not a JSON object")
        serial = changes.pop("phone", next(iter(controls)) if len(controls) == 1 else None)
        if serial not in controls:
            return _refusal(f"phone must be one of {', '.join(controls)}")
        return controls[serial].change(**changes).model_dump_json().encode()
    except ValidationError as error:
        return _refusal(str(error))
    except ValueError:
        return _refusal("not JSON")


def _refusal(sentence: str) -> bytes:
    return json.dumps({"error": sentence}).encode()


async def control_phone(port: int, *, phone: str | None = None, **changes: Any) -> Behaviour:
    """Change the behaviour of a running phone; with no changes, read it.

    Args:
        port: The control port on 127.0.0.1.
        phone: Its serial; may be left out when there is only one.
        changes: Fields of Behaviour.

    Raises:
        ValueError: The phone refused the change.
    """
    request = changes if phone is None else {"phone": phone, **changes}
    async with asyncio.timeout(_ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            answer = json.loads(await reader.readline())
        finally:
            writer.close()
            await writer.wait_closed()
    if "error" in answer:
        raise ValueError(answer["error"])
    return Behaviour.model_validate(answer)
