"""The outermost layer of every answer: request id, security headers, counts, and errors nobody else has answered."""

import time
from collections.abc import Callable, Mapping, Sequence

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.logs import get_logger
from contracts.metrics import HTTP_DURATION, HTTP_REQUESTS
from gateway.http.methods import HeadAnswered, Methods, without_body
from gateway.http.problems import Problem, ProblemType
from gateway.http.request import Disconnected, headers_of, refuse_encoded, request_id_of

ROUTE = "ish.route"
"""Scope key under which a route notes its template, the label of its metrics."""

_POLICY = b"content-security-policy"
_CACHE = b"cache-control"
_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_UNLESS_SET = {_CACHE: b"no-store", _POLICY: b"default-src 'none'; frame-ancestors 'none'"}


class Edge:
    """Wraps the application.

    Args:
        app: Everything else.
        shortcuts: Hot routes by method and path, called without the application's own routing.
        render: The answer that tells of a problem.
        methods: Which methods each path answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        shortcuts: Mapping[tuple[str, str], ASGIApp],
        render: Callable[[Scope, Problem], Response],
        methods: Methods,
    ) -> None:
        self._app = app
        self._render = render
        self._methods = methods
        self._shortcuts = dict(shortcuts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        request_id = request_id_of(scope)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = completed(message.get("headers", ()), request_id)
            await send(message)

        app = self._shortcuts.get((scope["method"], scope["path"])) or self._other
        try:
            refuse_encoded(headers_of(scope))
            await app(scope, receive, send_with_headers)
        except Disconnected:
            return
        except Problem as problem:
            await self._render(scope, problem)(scope, receive, send_with_headers)
        except Exception:
            get_logger().exception("request_crashed", request_id=request_id, path=scope["path"])
            if status:
                raise
            crash = Problem(ProblemType.INTERNAL, "It has been logged under this request's id.")
            await self._render(scope, crash)(scope, receive, send_with_headers)
        route = scope.get(ROUTE) or getattr(scope.get("route"), "path", "other")
        HTTP_REQUESTS.labels(route, str(status)).inc()
        HTTP_DURATION.labels(route).observe(time.perf_counter() - started_at)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is no hot route; HEAD and OPTIONS of what is one too."""
        method, methods = scope["method"], self._methods
        if method == "OPTIONS" and (allowed := methods.of(scope)):
            headers = [(b"allow", ", ".join(allowed).encode())]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        elif method != "HEAD":
            await self._app(scope, receive, send)
        elif methods.commands(scope):
            raise methods.refusal(scope)
        elif methods.has_route(scope, "HEAD") or not methods.has_route(scope, "GET"):
            await self._app(scope, receive, send)
        else:
            await self._answer_head(scope, receive, send)

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, without_body(send))
        except* HeadAnswered:
            pass
        scope["route"] = as_get.get("route")


def completed(given: Sequence[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """An answer's headers, with those that every answer has.

    Args:
        given: The answer's own.
        request_id: Names the request.
    """
    names = {name for name, _ in given}
    return [
        *given,
        *_ALWAYS,
        *((name, value) for name, value in _UNLESS_SET.items() if name not in names),
        (b"x-request-id", request_id.encode()),
    ]
