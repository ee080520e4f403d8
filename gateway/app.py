"""Puts the HTTP application together: routes, how their errors are answered, and the layer around it all."""

from collections.abc import Sequence

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from contracts.commands import KIND_AI, KIND_ANDROID, KIND_RELAY, KINDS
from contracts.faults import rule_of
from gateway.container import Parts
from gateway.http.methods import Methods
from gateway.http.middleware import Edge
from gateway.http.problems import Problem, ProblemType, render
from gateway.http.request import request_id_of
from gateway.openai import chat, models
from gateway.openai.failures import PREFIX, of_problem
from gateway.routes import artifacts, commands, documents, events, health, perplexity, records, uploads
from gateway.routes.submit import Accept

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
    for route in perplexity.ROUTES:
        accept = Accept(parts, KINDS[KIND_ANDROID], route.path, payload_of=route.payload)
        shortcuts.update({(method, route.path): accept for method in route.methods})
    # the shortcuts answer before routing; these make their methods known to it
    app.router.routes += [Route(path, endpoint, methods=[method]) for (method, path), endpoint in shortcuts.items()]
    for module in (health, commands, events, records, artifacts, uploads, chat, models, documents):
        app.include_router(module.router)
    app.state.openapi = documents.openapi(app, POST_PATHS, flows=perplexity.ROUTES)
    commanding = {path for _, path in shortcuts} - {health.HEALTH}
    methods = app.state.methods = Methods(app.router.routes, commanding=commanding)
    return Edge(app, shortcuts=shortcuts, render=rendered, methods=methods)


def rendered(scope: Scope, problem: Problem, *, status: int | None = None) -> Response:
    """A problem as the clients of its path expect it.

    Args:
        scope: Of the request.
        problem: What is wrong.
        status: Another status than the type's own.
    """
    if scope["path"].startswith(PREFIX):
        return of_problem(problem, status=status).response()
    return render(problem, request_id_of(scope), status=status)


async def _problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    return rendered(request.scope, error)


async def _invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = [{"field": _field(one["loc"]), "rule": rule_of(one)} for one in error.errors()]
    sentence = "; ".join(f"{one['field']}: {one['rule']}" for one in errors)
    return rendered(request.scope, Problem(ProblemType.INVALID_REQUEST, sentence, errors=errors))


def _field(location: Sequence[str | int]) -> str:
    """A parameter's name, without the place that it was in."""
    return ".".join(str(part) for part in location[1:]) or str(location[0])


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    kind, detail = _TYPES.get(error.status_code, (ProblemType.OTHER, str(error.detail)))
    if kind is ProblemType.METHOD_NOT_ALLOWED:
        methods: Methods = request.app.state.methods
        return rendered(request.scope, methods.refusal(request.scope))
    return rendered(request.scope, Problem(kind, detail, headers=error.headers), status=error.status_code)
