"""HTTP/1.1 on one connection: uvicorn's protocol, bounded before its parser can be made to work for nothing.

Whatever is not plainly one request after the other is refused with a problem document, and the connection is closed, since
nobody can tell where the next request would begin (`gateway.http.request_head` has the rules). Trailers are read and dropped.

    IDLE ──bytes──► HEAD ──its end──► BODY ──its end──► DONE ──answered──► IDLE
"""

from collections.abc import Callable
from typing import Any

import httptools
from starlette.responses import Response
from starlette.types import Scope
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from contracts.metrics import HTTP_REQUESTS
from gateway.http.connections import Connections
from gateway.http.middleware import completed
from gateway.http.problems import Problem, ProblemType
from gateway.http.request import request_id_of
from gateway.http.request_head import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    WATCHED,
    Head,
    bad,
    found_by_parser,
    head_too_large,
    target_too_long,
)

_MAX_OVERHEAD_BYTES = 64 * 1024
"""Of chunk sizes, chunk extensions and trailers, and eight times the body beside."""
_MAX_DISCARDED_BYTES = 16 * 1024 * 1024
"""Read and dropped after an early answer, since a client that still sends would be reset before it has read it."""
_MAX_PIPELINED = 64
_FIELD_BYTES = 4  # a colon, a space, CR and LF
_REFUSED_ROUTE = "refused"


_IDLE, _HEAD, _BODY, _DONE = range(4)
"""Plain numbers: they are compared a dozen times in each request."""
_BETWEEN = (_IDLE, _DONE)


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        connections: All of them.
        render: The answer that tells of a problem, by the scope of its request.
        uvicorn: What uvicorn gives its protocols.
    """

    def __init__(
        self, *, connections: Connections, render: Callable[[Scope, Problem], Response], **uvicorn: Any
    ) -> None:
        super().__init__(**uvicorn)
        self.deadline = 0.0
        self.started_at = 0.0
        self._connections = connections
        self._render = render
        self._phase = _IDLE
        self._is_deaf = False
        self._turned = False
        self._pending_bytes = 0
        self._discarded_bytes = 0
        self._head_bytes = 0
        self._is_timed = False
        self._body_bytes = 0
        self._head = Head()
        self._good_host: bytes | None = None

    # what `gateway.http.connections` needs

    @property
    def address(self) -> str:
        """The peer's."""
        return self.client[0] if self.client else ""

    @property
    def waits_for_us(self) -> bool:
        """Whether reading is paused since the application is behind."""
        return self.flow.read_paused

    def time_out(self) -> None:
        """Answer 408, unless nothing of a request has come, or it was answered before all of it had come."""
        if self._phase == _IDLE or (self._phase == _BODY and self.cycle.response_complete):
            self.cut()
            return
        what = "body" if self._phase == _BODY else "header"
        self._refuse(Problem(ProblemType.REQUEST_TIMEOUT, f"The request's {what} came too slowly."))

    def close(self) -> None:
        """Close between two requests."""
        self.transport.close()

    def cut(self) -> None:
        """Drop it."""
        self.transport.abort()

    @property
    def _is_answered(self) -> bool:
        """Whether no request waits for its answer."""
        cycle: Any = self.cycle  # None before the first
        return cycle is None or bool(cycle.response_complete)

    # asyncio's callbacks

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        now = self.loop.time()
        self.started_at = now
        self.deadline = now + self._connections.bounds.head_seconds
        problem = self._connections.admit(self, now)
        if problem is not None:
            self._refuse(problem)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        self._connections.stalled(self, self.loop.time())
        super().pause_writing()

    @override
    def resume_writing(self) -> None:
        self._connections.stalled(self, None)
        super().resume_writing()

    @override
    def shutdown(self) -> None:
        if self._is_deaf and self._is_answered:
            self.cut()
        else:
            super().shutdown()

    @override
    def data_received(self, data: bytes) -> None:
        rest = data
        while rest:
            if self._is_deaf:
                self._discard(len(rest))
                return
            rest = self._feed(rest)

    def _feed(self, data: bytes) -> bytes:
        """Parse what has come; returns what is left of it behind an upgrade that was asked for, and is ignored."""
        if self._phase in _BETWEEN:
            self._begin()
        self._turned = False
        body_before = self._body_bytes
        rest = b""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self._refuse(found_by_parser(error))
            return b""
        if self._phase == _DONE:
            if self.cycle.response_complete:
                self._phase = _IDLE
                self._connections.idle(self)
            else:
                self._connections.answering(self)
        else:
            self._bound(0 if self._turned else len(data), self._body_bytes - body_before)
        return rest

    def _begin(self) -> None:
        self._phase = _HEAD
        self._pending_bytes = 0
        self._head_bytes = 0
        self._is_timed = False

    def _bound(self, new_bytes: int, body_bytes: int) -> None:
        """Bound a request of which more is to come."""
        bounds = self._connections.bounds
        now = self.loop.time()
        self._pending_bytes += new_bytes - body_bytes if new_bytes else 0
        if not self._is_timed:
            # of a request that comes in one piece nobody asks the time
            self._is_timed = True
            self.started_at = now
            self.deadline = now + bounds.head_seconds
        if self._phase == _HEAD:
            if self._pending_bytes > MAX_HEAD_BYTES:
                self._refuse(head_too_large())
                return
        else:
            if self._pending_bytes > _MAX_OVERHEAD_BYTES + 8 * self._body_bytes:
                self._refuse(bad("The body's chunks say more about it than they hold of it."))
                return
            if self.cycle.response_complete:
                if self._discard(new_bytes):
                    return
            else:
                self.deadline = self.started_at + bounds.body_seconds + self._body_bytes / bounds.body_rate_bytes
        if self._is_answered or self._phase == _BODY:
            self._connections.reading(self, now)

    def _discard(self, size: int) -> bool:
        """Count what is read for nothing; returns whether that ends the connection."""
        self._discarded_bytes += size
        if self._discarded_bytes > _MAX_DISCARDED_BYTES:
            self.cut()
            return True
        return False

    # the parser's callbacks

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._phase != _HEAD:
            self._begin()
        self._head = Head()
        self._body_bytes = 0

    @override
    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            raise target_too_long()

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase != _HEAD:
            return  # a trailer
        name = name.lower()
        self._head_bytes += len(name) + len(value) + _FIELD_BYTES
        self.headers.append((name, value))
        if self._head_bytes > MAX_HEAD_BYTES:
            raise head_too_large()
        if name in WATCHED:
            self._head.watch(name, value)

    @override
    def on_headers_complete(self) -> None:
        head = self._head
        head.check(version=self.parser.get_http_version(), method=self.parser.get_method(), good_host=self._good_host)
        self._good_host = head.hosts[0] if head.hosts else None
        if len(self.headers) > MAX_FIELDS:
            raise head_too_large()
        if not self.url.startswith(b"/"):
            self.url = head.origin_form(self.url)
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise bad("Too many requests were sent before the first was answered.")
        self.expect_100_continue = head.continues
        self._turned = True
        self._pending_bytes = 0
        self._phase = _BODY
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._turned = True
        self._pending_bytes = 0
        self._phase = _DONE
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._is_deaf:
            self.transport.close()
        elif self._phase not in _BETWEEN:
            # its rest is read for as long as a header may take
            self._discarded_bytes = 0
            now = self.loop.time()
            self.deadline = now + self._connections.bounds.head_seconds
            self._connections.reading(self, now)
        else:
            self._phase = _IDLE
            self._connections.idle(self)

    # refusing

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(bad(msg))

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem if nothing else is being answered, and listen no more."""
        self._is_deaf = True
        self._connections.answering(self)
        if not self._is_answered:
            if self._phase != _BODY or self.pipeline or self.cycle.response_started:
                # the answers to earlier requests are not disturbed; they are the last
                self._abandon_body()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.flow.resume_reading()
        self.transport.write(self._answer(problem))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._connections.refused(self, self.loop.time())

    def _abandon_body(self) -> None:
        """Nothing more will come: whoever reads the body is told that the client went away."""
        if self._phase != _BODY:
            return
        if self.pipeline:
            self.pipeline.popleft()  # the newest, whose body it is; it has not been started
        else:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.transport.close()

    def _answer(self, problem: Problem) -> bytes:
        path = getattr(self, "url", b"").partition(b"?")[0].decode("latin-1")
        scope: Scope = {"type": "http", "path": path, "headers": []}
        response = self._render(scope, problem)
        HTTP_REQUESTS.labels(_REFUSED_ROUTE, str(response.status_code)).inc()
        headers = (*self.server_state.default_headers, *completed(response.raw_headers, request_id_of(scope)))
        head = [STATUS_LINE[response.status_code], *(b"%b: %b\r\n" % one for one in headers)]
        return b"".join((*head, b"connection: close\r\n\r\n", bytes(response.body)))
