"""The Perplexity app over HTTP: which command each route makes of which request."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from contracts.android.command import AndroidExecute
from ops.stack.session import Session
from tests.integration.gateway_process import (
    GatewayProcess,
    database,
    eventually,
    finish,
)


async def payload_of(services: Session, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    assert answer.json()["kind"] == "android.execute"

    async def recorded() -> Any:
        async with database(services, "ish_worker") as connection:
            return await connection.fetchval("select payload from commands where id = $1", UUID(answer.json()["id"]))

    payload: dict[str, Any] = orjson.loads(await eventually(recorded))
    AndroidExecute.model_validate(payload)
    return payload


@pytest.mark.parametrize(
    ("method", "path", "body", "payload"),
    [
        ("POST", "open", None, {"name": "perplexity.open", "inputs": {}}),
        ("POST", "open", {}, {"name": "perplexity.open", "inputs": {}}),
        ("POST", "open", {"device": "SIM1"}, {"name": "perplexity.open", "inputs": {}, "device": "SIM1"}),
        (
            "POST",
            "search",
            {"query": "日本 'q'", "tag": "lab"},
            {"name": "perplexity.search", "inputs": {"query": "日本 'q'"}, "tag": "lab"},
        ),
        (
            "POST",
            "ask",
            {"question": "Why?", "timeout_seconds": 60},
            {"name": "perplexity.ask", "inputs": {"question": "Why?"}, "timeout_seconds": 60.0},
        ),
        ("GET", "screenshot", None, {"name": "perplexity.screenshot", "inputs": {}}),
        ("GET", "screenshot?device=SIM1&timeout_seconds=9", None,
         {"name": "perplexity.screenshot", "inputs": {}, "device": "SIM1", "timeout_seconds": 9.0}),
        ("POST", "screenshot", {"tag": "lab"}, {"name": "perplexity.screenshot", "inputs": {}, "tag": "lab"}),
        ("GET", "text?tag=lab", None, {"name": "perplexity.text", "inputs": {}, "tag": "lab"}),
        ("POST", "text", None, {"name": "perplexity.text", "inputs": {}}),
    ],
)  # fmt: skip
async def test_each_route_makes_a_command_that_runs_its_flow(
    services: Session,
    client: httpx.AsyncClient,
    *,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    payload: dict[str, Any],
) -> None:
    answer = await client.request(method, f"/api/perplexity/{path}", json=body)

    assert await payload_of(services, answer) == {"action": "flow", **payload}


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "ask", b"{}", "question"),
        ("POST", "ask", b"", "question"),
        ("POST", "ask", b'{"question": ""}', "question"),
        ("POST", "ask", b'{"question": " \\n"}', "question"),
        ("POST", "ask", b'{"question": "q", "query": "x"}', "query"),
        ("POST", "search", b'{"query": 7}', "query"),
        ("POST", "open", b'{"device": "a;b"}', "device"),
        ("POST", "open", b'{"device": "a", "tag": "b"}', "(body)"),
        ("POST", "open", b"{", "(body)"),
        ("POST", "open", b"[]", "(body)"),
        ("GET", "text?devise=a", b"", "devise"),
        ("GET", "screenshot?timeout_seconds=x", b"", "timeout_seconds"),
    ],
)
async def test_a_bad_request_names_the_field(
    client: httpx.AsyncClient, method: str, path: str, body: bytes, field: str
) -> None:
    answer = await client.request(
        method, f"/api/perplexity/{path}", content=body, headers={"Content-Type": "application/json"}
    )

    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_it_can_be_waited_for_and_repeated_under_one_key(services: Session, client: httpx.AsyncClient) -> None:
    async def ask() -> httpx.Response:
        return await client.post(
            "/api/perplexity/ask?wait=30", json={"question": "Why?"}, headers={"Idempotency-Key": "once"}
        )

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(ask())

        async def accepted() -> str | None:
            listed = (await client.get("/api/commands")).json()["items"]
            return str(listed[0]["id"]) if listed else None

        command_id = str(await eventually(accepted))
        await finish(services, command_id, reply=True, output={"answer": "Because.", "sources": []})
    again = await ask()

    assert first.result().status_code == 200
    assert first.result().json()["result"]["output"]["answer"] == "Because."
    assert again.json()["id"] == command_id


async def test_other_methods_and_missing_keys_are_refused(gateway: GatewayProcess, client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/perplexity/ask")).status_code == 405
    assert (await client.delete("/api/perplexity/open")).status_code == 405
    assert (await client.post("/api/perplexity/other")).status_code == 404
    async with gateway.client("wrong") as stranger:
        assert (await stranger.post("/api/perplexity/open")).status_code == 401


async def test_the_routes_are_documented_with_examples(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    page = (await client.get("/docs")).text

    ask = paths["/api/perplexity/ask"]["post"]
    assert ask["requestBody"]["required"] is True
    assert ask["requestBody"]["content"]["application/json"]["example"] == {"question": "What is a quorum queue?"}
    assert paths["/api/perplexity/open"]["post"]["requestBody"]["required"] is False
    assert {"device", "tag"} <= {one["name"] for one in paths["/api/perplexity/text"]["get"]["parameters"]}
    assert "What is a quorum queue?" in page
