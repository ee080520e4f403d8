"""Which methods a path answers: for `Allow`, for OPTIONS, and for HEAD, which every path has that can be read."""

from collections.abc import Collection, Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import Message, Scope, Send

from gateway.http.problems import Problem, ProblemType

_ROUTED = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Methods:
    """The methods of every path.

    Args:
        routes: The application's.
        commanding: Paths whose GET makes a command: a HEAD would make one for nothing.
    """

    def __init__(self, routes: Sequence[BaseRoute], *, commanding: Collection[str]) -> None:
        self._routes = routes
        self._commanding = frozenset(commanding)

    def of(self, scope: Scope) -> list[str]:
        """What a request's path answers; nothing when there is no such path.

        Args:
            scope: The request.
        """
        found = [method for method in _ROUTED if self.has_route(scope, method)]
        if "GET" in found and not self.commands(scope):
            found.insert(1, "HEAD")
        return [*found, "OPTIONS"] if found else []

    def has_route(self, scope: Scope, method: str) -> bool:
        """Whether a route answers this method.

        Args:
            scope: The request.
            method: Perhaps another than its own.
        """
        asked = {**scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in self._routes)

    def commands(self, scope: Scope) -> bool:
        """Whether every request to this path makes a command.

        Args:
            scope: The request.
        """
        return scope["path"] in self._commanding

    def refusal(self, scope: Scope) -> Problem:
        """The problem of a method that a path does not answer.

        Args:
            scope: The request.
        """
        allowed = ", ".join(self.of(scope))
        return Problem(ProblemType.METHOD_NOT_ALLOWED, f"This path answers {allowed}.", headers={"Allow": allowed})


class HeadAnswered(Exception):
    """The header of the answer to a HEAD is sent; whoever makes the body need not go on."""


def without_body(send: Send) -> Send:
    """Send an answer's header, and end it there.

    Args:
        send: Where it goes.
    """

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            return
        await send({"type": "http.response.body", "body": b""})
        raise HeadAnswered

    return send_head
