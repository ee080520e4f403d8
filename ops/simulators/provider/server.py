"""The server itself: HTTP on asyncio's protocols, lean enough that benchmarks measure their subject and not this.

POST …/chat/completions   an answer, as scripted, plain or streamed; /zai/… and /perplexity/… in that vendor's form
POST …/messages           the same in Anthropic's
GET  …/models             the models asked for so far
POST   /__script          add a script (see `scripts.Script`), or replace the one of the same name
DELETE /__script          answer well again; ?name= forgets one script
GET    /__calls           counts; ?command_id= for one command
GET    /health

A latency is changed while calls go on with `POST /__script {"name": "a", "match": {"model": "a"}, "latency_seconds": 2}`.
"""

import asyncio
import hashlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import parse_qs

import httptools
import orjson
from pydantic import ValidationError
from typing_extensions import override

from ops.simulators.provider.answers import Reply, reply
from ops.simulators.provider.ledger import Ledger, Result, command_id_of
from ops.simulators.provider.scripts import Call, Script, Scripts
from ops.simulators.provider.wire import Ending, Pause, http

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 8 * 1024 * 1024


class Connection(asyncio.Protocol):
    """One client's connection; requests on it are answered one after the other.

    Args:
        scripts: How calls are answered.
        ledger: Where calls are recorded.
        connections: All that are open, to be closed at the end.
    """

    def __init__(self, scripts: Scripts, ledger: Ledger, connections: set["Connection"]) -> None:
        self._scripts = scripts
        self._ledger = ledger
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._key = ""
        self._body = bytearray()
        self._call = 0
        self._reply: Reply | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._reply is not None:
            self._finish("info")

    @override
    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._send(http(400, b'{"error": {"message": "not HTTP"}}'))
            self.close()

    @override
    def pause_writing(self) -> None:
        self._paused = True

    @override
    def resume_writing(self) -> None:
        self._paused = False
        if self._reply is not None and self._timer is None:
            self._play()

    def on_message_begin(self) -> None:
        """httptools: a request begins."""
        self._key = ""
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        """httptools: the request's target."""
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        if name.lower() == b"idempotency-key":
            self._key = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """httptools: a piece of the body."""
        self._body += body
        if len(self._body) > MAX_REQUEST_BYTES:
            self.close()

    def on_message_complete(self) -> None:
        """httptools: the request is whole."""
        if self._reply is not None:  # the next request before this answer: no client of ours pipelines
            self.close()
            return
        method, path = self._parser.get_method(), self._url.partition(b"?")[0]
        if method == b"POST" and path.endswith((b"/chat/completions", b"/messages")):
            self._answer_call(path.decode("latin-1"))
        else:
            self._send(self._control(method, path))

    def close(self) -> None:
        """Close the connection after what was written."""
        if self._transport is not None:
            self._transport.close()

    def _answer_call(self, path: str) -> None:
        try:
            body = orjson.loads(self._body)
            messages = body["messages"]
            question = next((line["content"] for line in reversed(messages) if line["role"] == "user"), "")
            call = Call(str(body["model"]), command_id_of(self._key), str(question), path)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            self._send(http(400, b'{"error": {"code": "bad_request", "message": "not a chat completion request"}}'))
            return
        if isinstance(system := body.get("system"), str):  # Anthropic's form has it apart
            messages = [{"role": "system", "content": system}, *messages]
        stream = body.get("stream") is True
        self._call = self._ledger.invoke(
            idempotency_key=self._key,
            command_id=call.command_id,
            model=call.model,
            prompt_sha256=hashlib.sha256(orjson.dumps(messages)).hexdigest(),
            path=path,
            stream=stream,
        )
        turn = self._scripts.next_turn(call)
        self._reply = reply(turn, call, messages=messages, stream=stream)
        if turn.latency_seconds > 0:
            self._resume_in(turn.latency_seconds)
        else:
            self._play()

    def _play(self) -> None:
        """Carry out the plan until it pauses, ends, or the client must read first."""
        self._timer = None
        current = self._reply
        if current is None:
            return
        while not self._paused:
            match next(current.plan, None):
                case bytes() as data:
                    self._send(data)
                case Pause(seconds=seconds):
                    self._resume_in(seconds)
                    return
                case Ending.STALL:
                    if current.is_good:
                        self._finish("ok")
                    return
                case Ending.RESET:
                    self._finish("ok" if current.is_good else "fail")
                    self._reset()
                    return
                case Ending.CLOSE:
                    self._finish("fail")
                    self.close()
                    return
                case None:
                    self._finish("ok" if current.is_good else "fail")
                    return

    def _resume_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._play)

    def _finish(self, event: Result) -> None:
        current, self._reply = self._reply, None
        if current is not None:
            self._ledger.end(
                self._call,
                event=event,
                step=current.name,
                tokens_in=current.tokens_in if event == "ok" else 0,
                tokens_out=current.tokens_out if event == "ok" else 0,
            )

    def _reset(self) -> None:
        if self._transport is not None:
            # no lingering: the kernel sends RST instead of a FIN
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self._transport.abort()

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _control(self, method: bytes, path: bytes) -> bytes:
        if method == b"GET" and path.endswith(b"/models"):
            models = [{"id": name, "object": "model"} for name in self._ledger.counts()["by_model"]]
            return http(200, orjson.dumps({"object": "list", "data": models}))
        operations = {
            (b"GET", b"/health"): lambda: http(200, b'{"status": "ok"}'),
            (b"GET", b"/__calls"): self._counts,
            (b"POST", b"/__script"): self._add_script,
            (b"DELETE", b"/__script"): self._clear_scripts,
        }
        operation = operations.get((method, path))
        return http(404, b'{"error": {"message": "not found"}}') if operation is None else operation()

    def _add_script(self) -> bytes:
        try:
            self._scripts.add(Script.model_validate_json(bytes(self._body)))
        except ValidationError as error:
            return http(422, error.json(include_url=False, include_input=False).encode())
        return http(200, b"{}")

    def _clear_scripts(self) -> bytes:
        self._scripts.clear(self._query().get("name", [None])[0])
        return http(200, b"{}")

    def _counts(self) -> bytes:
        query = self._query()
        if "command_id" in query:
            return http(200, orjson.dumps({"calls": self._ledger.calls_of(query["command_id"][0])}))
        return http(200, orjson.dumps(self._ledger.counts()))

    def _query(self) -> dict[str, list[str]]:
        return parse_qs(self._url.partition(b"?")[2].decode("latin-1"))


@asynccontextmanager
async def running(*, port: int, scripts: Scripts, ledger: Ledger) -> AsyncIterator[int]:
    """Serve on loopback until the block ends; connections still open are then cut.

    Args:
        port: 0 takes a free one.
        scripts: How calls are answered.
        ledger: Where they are recorded; the caller closes it.

    Yields:
        The port.
    """
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(scripts, ledger, connections), HOST, port)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for connection in list(connections):
            connection.close()
        await server.wait_closed()
