"""Puts the HTTP application together: routes, how their errors are answered, and the layer around it all."""

from collections.abc import Sequence

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from contracts.commands import KIND_AI, KIND_ANDROID, KIND_RELAY, KINDS
from gateway import commands, documents, health, records
from gateway.accept import Accept
from gateway.edge import Edge
from gateway.intake import request_id_of
from gateway.parts import Parts
from gateway.problems import Problem, ProblemType, render

POST_PATHS = {"/api/relay": KIND_RELAY, "/api/send": KIND_AI, "/api/android/execute": KIND_ANDROID}
"""Paths that accept commands, and their kinds."""

_TYPES = {
    404: (ProblemType.NOT_FOUND, "There is nothing at this path; /docs lists what there is."),
    405: (ProblemType.METHOD_NOT_ALLOWED, "/docs lists what this path answers."),
}


def build(parts: Parts) -> ASGIApp:
    """The application of one gateway.

    Args:
        parts: What it consists of; running before the first request.
    """
    app = FastAPI(
        title="ISH Chat",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={
            Problem: _problem,
            RequestValidationError: _invalid_request,
            HTTPException: _http_error,
        },
    )
    app.state.parts = parts
    app.state.ready = health.ReadyCheck.of(parts)
    shortcuts: dict[tuple[str, str], ASGIApp] = {("GET", health.HEALTH): health.Health()}
    for path, kind in POST_PATHS.items():
        shortcuts["POST", path] = Accept(parts, KINDS[kind], path)
    # the shortcuts answer before routing; these answer another method with 405
    app.router.routes += [Route(path, endpoint, methods=[method]) for (method, path), endpoint in shortcuts.items()]
    for router in (health.router, commands.router, records.router, documents.router):
        app.include_router(router)
    app.state.openapi = documents.openapi(app, POST_PATHS)
    return Edge(app, shortcuts=shortcuts)


async def _problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return render(error, request_id_of(request.scope))


async def _invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = [{"field": _field(one["loc"]), "rule": str(one["msg"])} for one in error.errors()]
    sentence = "; ".join(f"{one['field']}: {one['rule']}" for one in errors)
    return render(Problem(ProblemType.INVALID_REQUEST, sentence, errors=errors), request_id_of(request.scope))


def _field(location: Sequence[str | int]) -> str:
    """A parameter's name, without the place that it was in."""
    return ".".join(str(part) for part in location[1:]) or str(location[0])


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    kind, detail = _TYPES.get(error.status_code, (ProblemType.OTHER, str(error.detail)))
    problem = Problem(kind, detail, headers=error.headers)
    return render(problem, request_id_of(request.scope), status=error.status_code)
