"""What the gateway refuses and how it says so, and what every answer carries."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from ops.admin import keys
from ops.stack.session import Session
from tests.integration.gateway_process import RELAY, GatewayProcess

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def client(services: Session, gateway: GatewayProcess) -> Any:
    async with gateway.client(await keys.create_key(services.postgres_url("ish_ops"), "refused")) as one:
        yield one


def _problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:ish:problem:{slug}"
    assert document["status"] == status
    assert document["instance"] == f"urn:ish:request:{answer.headers['x-request-id']}"
    return document


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "(body)"),
        (b"not json", "(body)"),
        (b'"a string"', "(body)"),
        (b'{"a":' * 5000, "(body)"),
        (json.dumps({**RELAY, "sender": "robot"}).encode(), "sender"),
        (json.dumps({**RELAY, "message": ""}).encode(), "message"),
        (json.dumps({**RELAY, "message": "x" * 10_001}).encode(), "message"),
        (json.dumps({**RELAY, "message": "a\0b"}).encode(), "message"),
        (json.dumps({**RELAY, "metadata": {"a": ["b\0"]}}).encode(), "metadata"),
        (json.dumps({**RELAY, "surprise": 1}).encode(), "surprise"),
        (b'{"sender":"user","message":"\xff","timestamp":"2026-01-01T00:00:00Z"}', "(body)"),
    ],
)
async def test_bad_body_names_the_field(client: httpx.AsyncClient, body: bytes, field: str) -> None:
    answer = await client.post("/api/relay", content=body, headers=JSON)

    document = _problem(answer, 422, "invalid-request")
    assert field in {one["field"] for one in document["errors"]}


@pytest.mark.parametrize(
    ("headers", "query", "field"),
    [
        ({"Idempotency-Key": ""}, "", "Idempotency-Key"),
        ({"Idempotency-Key": "x" * 256}, "", "Idempotency-Key"),
        ({"Idempotency-Key": "with space"}, "", "Idempotency-Key"),
        ({"Ish-Priority": "urgent"}, "", "Ish-Priority"),
        ({"Ish-Deadline-Seconds": "0"}, "", "Ish-Deadline-Seconds"),
        ({"Ish-Deadline-Seconds": "604801"}, "", "Ish-Deadline-Seconds"),
        ({"Ish-Deadline-Seconds": "nan"}, "", "Ish-Deadline-Seconds"),
        ({"Prefer": "wait=61"}, "", "Prefer"),
        ({"Prefer": "wait=1.5"}, "", "Prefer"),
        ({}, "wait=61", "wait"),
        ({}, "wait=-1", "wait"),
        ({}, "wait=", "wait"),
    ],
)
async def test_bad_header_or_parameter_is_named(
    client: httpx.AsyncClient, headers: dict[str, str], query: str, field: str
) -> None:
    answer = await client.post(f"/api/relay?{query}", json=RELAY, headers=headers)

    [error] = _problem(answer, 422, "invalid-request")["errors"]
    assert error["field"] == field


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/commands/not-a-uuid", "command_id"),
        ("/api/commands/00000000-0000-4000-8000-000000000000?wait=61", "wait"),
        ("/api/commands?limit=201", "limit"),
        ("/api/commands?kind=nonsense", "kind"),
        ("/api/commands?status=nonsense", "status"),
        ("/api/commands?cursor=nonsense", "cursor"),
        ("/api/artifacts/abc", "sha256"),
        ("/api/conversations/a%20b/messages", "conversation_id"),
    ],
)
async def test_bad_read_names_the_field(client: httpx.AsyncClient, path: str, field: str) -> None:
    document = _problem(await client.get(path), 422, "invalid-request")

    assert [one["field"] for one in document["errors"]] == [field]


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_over_the_limit_is_413(client: httpx.AsyncClient, *, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield b"x" * (MIB // 16)

    content = pieces() if chunked else b"x" * (2 * MIB)

    answer = await client.post("/api/relay", content=content, headers=JSON)

    _problem(answer, 413, "body-too-large")
    assert (await client.post("/api/relay", json=RELAY)).status_code == 202, "the connection is still good"


async def test_body_of_the_limit_in_chunks_is_read(client: httpx.AsyncClient) -> None:
    body = json.dumps(RELAY).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 10):
            yield body[at : at + 10]

    assert (await client.post("/api/relay", content=pieces(), headers=JSON)).status_code == 202


async def test_other_media_type_is_415_and_none_or_curls_default_is_taken_for_json(client: httpx.AsyncClient) -> None:
    body = json.dumps(RELAY).encode()

    xml = await client.post("/api/relay", content=body, headers={"Content-Type": "application/xml"})
    curl = await client.post("/api/relay", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    none = await client.post("/api/relay", content=body)

    _problem(xml, 415, "unsupported-media-type")
    assert (curl.status_code, none.status_code) == (202, 202)


async def test_unknown_path_is_404_with_and_without_a_key(gateway: GatewayProcess, client: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as anonymous:
        _problem(await anonymous.get("/api/nothing"), 404, "not-found")
        _problem(await anonymous.get("/health/"), 404, "not-found")
    _problem(await client.post("/api/nothing", json={}), 404, "not-found")


METHODS = {
    "/health": "GET, HEAD, OPTIONS",
    "/ready": "GET, HEAD, OPTIONS",
    "/api/relay": "POST, OPTIONS",
    "/api/commands": "GET, HEAD, OPTIONS",
    f"/api/commands/{UUID(int=1)}": "GET, HEAD, DELETE, OPTIONS",
    f"/api/commands/{UUID(int=1)}/events": "GET, HEAD, OPTIONS",
    "/api/perplexity/ask": "POST, OPTIONS",
    "/api/perplexity/text": "GET, POST, OPTIONS",
    "/v1/models": "GET, HEAD, OPTIONS",
    "/v1/chat/completions": "POST, OPTIONS",
}


@pytest.mark.parametrize("path", METHODS)
async def test_405_and_options_name_exactly_the_methods_of_the_path(client: httpx.AsyncClient, path: str) -> None:
    options = await client.options(path)
    answers = {
        method: await client.request(method, path)
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", "TRACE")
        if method not in METHODS[path].split(", ")
    }

    assert (options.status_code, options.headers["allow"]) == (204, METHODS[path])
    for method, answer in answers.items():
        assert (answer.status_code, answer.headers["allow"]) == (405, METHODS[path]), method
        if not path.startswith("/v1/") and method != "HEAD":
            _problem(answer, 405, "method-not-allowed")


async def test_every_route_of_the_document_allows_what_it_says(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    for template, operations in document["paths"].items():
        options = await client.options(re.sub(r"\{.*?\}", "00000000-0000-4000-8000-000000000000", template))
        allowed = set(options.headers["allow"].split(", "))
        assert {method.upper() for method in operations} - {"PARAMETERS"} == allowed - {"HEAD", "OPTIONS"} | (
            {"HEAD"} if "head" in operations else set()
        ), template


@pytest.mark.parametrize("path", ["/health", "/api/commands", "/openapi.json", "/docs", "/v1/models"])
async def test_head_is_get_without_the_body(client: httpx.AsyncClient, path: str) -> None:
    head, whole = await client.head(path), await client.get(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert head.headers["content-length"] == whole.headers["content-length"]


async def test_head_of_events_ends_with_its_header(client: httpx.AsyncClient) -> None:
    command_id = (await client.post("/api/relay", json=RELAY)).json()["id"]

    answer = await client.head(f"/api/commands/{command_id}/events")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


async def test_options_of_nothing_is_404(client: httpx.AsyncClient) -> None:
    assert (await client.options("/api/nothing")).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "field", "words"),
    [
        ("/api/android/execute", {}, "action", "is required, as one of"),
        ("/api/android/execute", {"action": "fly"}, "action", "must be one of tap, "),
        ("/api/android/execute", {"action": None}, "action", "must be one of tap, "),
        ("/api/android/execute", {"action": "tap", "x": 1}, "y", "is required"),
        ("/api/android/execute", {"action": "batch", "actions": [{}]}, "actions.0.action", "is required"),
        ("/api/android/execute", {"command": "shell input tap 99999 1"}, "command", "x: must be at most 16383"),
        ("/api/android/execute", [], "(body)", "must be an object"),
        ("/api/relay", {}, "sender", "is required"),
        ("/api/relay", {**RELAY, "ask": 5}, "ask", "must be an object or must be true or false"),
        ("/api/relay", {**RELAY, "ask": {"model": 5}}, "ask.model", "must be text"),
        ("/api/send", {}, "(body)", "one of prompt and messages is required"),
        ("/api/send", {"prompt": 5}, "prompt", "must be text"),
        ("/api/perplexity/ask", {}, "question", "is required"),
        ("/api/perplexity/ask", {"question": "a", "timeout_seconds": "x"}, "timeout_seconds", "must be a number"),
        ("/api/perplexity/open", {"surprise": 1}, "surprise", "is not known here"),
    ],
)
async def test_misfit_is_told_in_our_words(
    client: httpx.AsyncClient, path: str, body: Any, field: str, words: str
) -> None:
    errors = _problem(await client.post(path, json=body), 422, "invalid-request")["errors"]

    [rule] = [one["rule"] for one in errors if one["field"] == field]
    assert words in rule


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/api/commands/x", "must be a UUID"),
        ("/api/commands?limit=x", "must be a whole number"),
        ("/api/commands?limit=0", "must be at least 1"),
        ("/api/commands?limit=201", "must be at most 200"),
        ("/api/commands?kind=x", "must be one of relay, ai.send, android.execute"),
        ("/api/commands?status=x", "must be one of queued, running, "),
        (f"/api/commands?cursor={'x' * 65}", "must have at most 64 characters"),
        ("/api/artifacts/abc", "must match ^[0-9a-f]{64}$"),
        ("/api/perplexity/text?device=", "must"),
    ],
)
async def test_bad_parameter_is_told_in_our_words(client: httpx.AsyncClient, path: str, rule: str) -> None:
    [error] = _problem(await client.get(path), 422, "invalid-request")["errors"]

    assert error["rule"].startswith(rule)


async def test_every_answer_carries_the_security_headers(client: httpx.AsyncClient) -> None:
    answers = [
        await client.get("/health"),
        await client.get("/ready"),
        await client.get("/api/commands"),
        await client.post("/api/relay", json=RELAY),
        await client.post("/api/relay", json={}),
        await client.get("/api/nothing"),
        await client.get("/api/commands", headers={"X-API-Key": "wrong"}),
        await client.get("/docs"),
    ]

    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in answer.headers
        assert len(answer.headers.get_list("x-request-id")) == 1


async def test_health_answers_head_too(client: httpx.AsyncClient) -> None:
    answer = await client.head("/health")

    assert (answer.status_code, answer.content) == (200, b"")


async def test_insane_request_id_is_replaced(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health", headers={"X-Request-Id": "a b" * 100})

    assert answer.headers["x-request-id"] != "a b" * 100


async def test_metrics_are_for_this_machine_or_a_key(gateway: GatewayProcess, client: httpx.AsyncClient) -> None:
    await client.post("/api/relay", json=RELAY)
    await client.get(f"/api/commands/{uuid4()}")
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False) as anonymous:
        here = await anonymous.get("/metrics")
        proxied = await anonymous.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})

    assert 'ish_http_requests_total{route="/api/relay",status="202"}' in here.text
    assert 'route="/api/commands/{command_id}",status="404"' in here.text
    assert proxied.status_code == 422


async def test_openapi_document_describes_every_path_and_the_page_shows_them(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    page = await client.get("/docs")

    assert {
        "/api/relay",
        "/api/send",
        "/api/android/execute",
        "/api/commands/{command_id}",
        "/health",
        "/ready",
    } <= set(document["paths"])
    missing = {reference for reference in _references(document) if reference not in document["components"]["schemas"]}
    assert missing == set()
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text
    for path in document["paths"]:
        assert path in page.text


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"].rpartition("/")[2]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(_references(one) for one in value.values()))
    if isinstance(value, list):
        return set().union(*(_references(one) for one in value))
    return set()
