"""The API described: the OpenAPI document, a page that shows it without any script, and the AsyncAPI document."""

import html
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi

from contracts.commands import KINDS
from gateway.http.problems import Problem, ProblemType
from gateway.routes import described
from gateway.routes.perplexity import FlowRoute
from gateway.services.views import AcceptedCommand

router = APIRouter(include_in_schema=False)

_ABOUT = """\
Requests to relay chat messages, ask AI models and drive Android phones become durable commands on RabbitMQ. What was
accepted is finished exactly once on record, and its result reaches whoever asked.
"""
_POSTS = {
    "relay": ("Relay a message", "Records one chat message and delivers it to your webhook targets."),
    "ai.send": ("Ask a model", "Sends one question to a language model."),
    "android.execute": ("Use a phone", "Runs one action on one Android phone."),
}
_LIVENESS = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
_ASYNCAPI = "documents/asyncapi.json"
_DOCS_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def openapi(app: FastAPI, posts: Mapping[str, str], *, flows: Sequence[FlowRoute] = ()) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, and the routes that it does not know.

    Args:
        app: With its ordinary routes.
        posts: Paths that accept commands, and their kinds.
        flows: Paths that accept commands which run a flow.
    """
    document = get_openapi(title=app.title, version="1", description=_ABOUT, routes=app.routes)
    components = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    accepted = {"application/json": {"schema": _add(schemas, AcceptedCommand)}}
    paths = {path: {"post": _post(schemas, kind, accepted)} for path, kind in posts.items()}
    for route in flows:
        paths[route.path] = {method.lower(): _flow(schemas, route, method, accepted) for method in route.methods}
    document["paths"] = {**paths, "/health": {"get": _health()}, **document["paths"]}
    described.complete(document)
    return document


def _post(schemas: dict[str, Any], kind: str, accepted: dict[str, Any]) -> dict[str, Any]:
    title, description = _POSTS[kind]
    return {
        "tags": ["commands"],
        "summary": title,
        "description": description,
        "operationId": f"post_{kind.replace('.', '_')}",
        "parameters": described.command_parameters(),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _add(schemas, KINDS[kind].payload)}},
        },
        "responses": _accepted_or_finished(accepted),
    }


def _flow(schemas: dict[str, Any], route: FlowRoute, method: str, accepted: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": ["perplexity"],
        "summary": route.title,
        "description": f"{route.about} The command's `output` has what it answers.",
        "operationId": f"{method.lower()}_perplexity_{route.name}",
        "parameters": described.command_parameters(),
        "responses": _accepted_or_finished(accepted),
    }
    if method == "GET":
        properties = route.model.model_json_schema()["properties"]
        operation["parameters"] += [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": schema.pop("description", ""),
                "schema": schema,
            }
            for name, schema in properties.items()
        ]
    else:
        content = {"schema": _add(schemas, route.model), "example": route.example}
        operation["requestBody"] = {
            "required": any(one.is_required() for one in route.model.model_fields.values()),
            "content": {"application/json": content},
        }
    return operation


def _accepted_or_finished(accepted: dict[str, Any]) -> dict[str, Any]:
    return {
        "202": {
            "description": "Accepted: the broker has confirmed it.",
            "headers": {**described.ACCEPTED_HEADERS},
            "content": accepted,
        },
        "200": {
            "description": "Finished within the wait.",
            "headers": {**described.FINISHED_HEADERS},
            "content": accepted,
        },
    }


def _health() -> dict[str, Any]:
    return {
        "tags": ["operation"],
        "summary": "Health",
        "description": "The process answers; public.",
        "operationId": "health",
        "responses": {"200": {"description": "It does.", "content": {"application/json": {"schema": _LIVENESS}}}},
    }


def _add(schemas: dict[str, Any], model: Any) -> dict[str, Any]:
    """Put a model and what it refers to among the components."""
    schema = model.model_json_schema(ref_template=described.REFERENCE)
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    return {"$ref": described.REFERENCE.format(model=model.__name__)}


@router.get("/openapi.json")
async def read_openapi(request: Request) -> Response:
    """The document."""
    return Response(orjson.dumps(request.app.state.openapi), media_type="application/json")


@router.get("/docs")
async def read_docs(request: Request) -> Response:
    """The document for people."""
    page = render_page(request.app.state.openapi)
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": _DOCS_POLICY})


@router.get("/asyncapi")
async def read_asyncapi() -> Response:
    """What may be published and consumed on the broker itself."""
    document = _asyncapi()
    if document is None:
        raise Problem(ProblemType.NOT_FOUND, "This installation carries no AsyncAPI document.")
    return Response(document, media_type="application/json")


@cache
def _asyncapi() -> bytes | None:
    document = files("contracts").joinpath(_ASYNCAPI)
    return document.read_bytes() if document.is_file() else None


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
summary{cursor:pointer;padding:.4rem 0;border-top:1px solid #ddd}code,pre{font:14px/1.4 ui-monospace,monospace}
pre{background:#f5f5f5;padding:.8rem;overflow:auto}.m{display:inline-block;width:4.5rem;font-weight:700}
td{padding:.2rem 1rem .2rem 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#252525}summary{border-color:#444}}
"""


def render_page(document: dict[str, Any]) -> str:
    """An OpenAPI document as one page of HTML, which loads nothing from anywhere.

    Args:
        document: From `openapi`.
    """
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f"<details id='{_text(name)}'><summary><code>{_text(name)}</code></summary>{_json(schema)}</details>"
        for name, schema in sorted(document["components"]["schemas"].items())
    )
    info = document["info"]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{_text(info['title'])}</title><style>{_STYLE}</style><h1>{_text(info['title'])}</h1>"
        f"<p>{_text(info['description'])}</p><p>Send your key as <code>X-API-Key</code>. For programs: "
        "<a href=/openapi.json>OpenAPI</a>, <a href=/asyncapi>AsyncAPI</a>.</p>"
        f"<h2>Paths</h2>{operations}<h2>Schemas</h2>{schemas}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{_text(one['name'])}</code><td>{one['in']}<td>{_text(one.get('description', ''))}"
        for one in operation.get("parameters", ())
    )
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    body = content.get("schema")
    example = f"<p>Example:</p>{_json(content['example'])}" if content.get("example") else ""
    answers = "".join(
        f"<tr><td>{status}<td>{_text(answer['description'])}{_links(answer)}"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<details><summary><span class=m>{method.upper()}</span><code>{_text(path)}</code> "
        f"{_text(operation.get('summary', ''))}</summary><p>{_text(operation.get('description', ''))}</p>"
        f"<table>{parameters}</table>{'<p>Body: ' + _link(body) + '</p>' if body else ''}{example}<table>{answers}</table></details>"
    )


def _links(answer: dict[str, Any]) -> str:
    return "".join(
        f" {_link(content['schema'])}" for content in answer.get("content", {}).values() if "schema" in content
    )


def _link(schema: dict[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return f"<a href='#{_text(name)}'>{_text(name)}</a>" if name else ""


def _json(schema: Any) -> str:
    return f"<pre>{_text(orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode())}</pre>"


def _text(text: str) -> str:
    return html.escape(text)
