"""Commands over HTTP: accepted, read, waited for, listed and cancelled."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from ops.admin import keys
from ops.stack.session import Session
from tests.integration.gateway_process import (
    RELAY,
    GatewayProcess,
    database,
    empty_work_queues,
    eventually,
    finish,
    gateway_process,
    post,
    recorded,
    take,
)


async def test_accepted_command_is_on_its_queue_with_its_envelope(
    services: Session, client: httpx.AsyncClient, owner: str
) -> None:
    await empty_work_queues(services)
    traceparent = f"00-{uuid4().hex}-{uuid4().hex[:16]}-01"

    answer = await client.post(
        "/api/relay",
        json=RELAY,
        headers={"X-Request-Id": "my-request", "traceparent": traceparent, "Ish-Deadline-Seconds": "60"},
    )

    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/commands/{body['id']}" == body["links"]["self"]
    assert answer.headers["x-request-id"] == "my-request"
    assert body["status"] == "queued"
    [message] = await take(services, "ish.relay")
    assert message.message_id == body["id"] == body["message_id"]
    assert (message.type, message.user_id, message.correlation_id) == ("relay.v1", "gateway", "my-request")
    assert message.reply_to is None
    assert message.headers["x-owner"] == owner
    assert message.headers["x-publisher"] == "gateway"
    assert message.headers["traceparent"] == traceparent
    assert message.headers["x-deadline-ms"] - message.headers["x-created-ms"] == 60_000
    assert message.body == answer.request.content


@pytest.mark.parametrize(
    ("path", "body", "headers", "queue"),
    [
        ("/api/send", {"prompt": "hello"}, {}, "ish.ai"),
        ("/api/send", {"prompt": "hello"}, {"Ish-Priority": "batch"}, "ish.ai.batch"),
        ("/api/android/execute", {"action": "screenshot"}, {}, "ish.android"),
        ("/api/android/execute", {"command": "shell getprop ro.product.model"}, {}, "ish.android"),
    ],
)
async def test_each_kind_goes_to_its_queue(  # noqa: PLR0917  # pytest calls it by name
    services: Session, client: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str], queue: str
) -> None:
    await empty_work_queues(services)

    command = await post(client, path, json=body, headers=headers)

    [message] = await take(services, queue)
    assert message.message_id == command["id"]


async def test_tap_is_recorded_as_not_to_be_repeated(services: Session, client: httpx.AsyncClient) -> None:
    command = await post(client, "/api/android/execute", json={"action": "tap", "x": 1, "y": 2})

    async with database(services, "ish_worker") as connection:
        repeatable = await connection.fetchval("select repeatable from commands where id = $1", UUID(command["id"]))
    assert repeatable is False


async def test_second_gateway_knows_a_command_at_once_and_is_woken_by_its_end(
    services: Session, client: httpx.AsyncClient
) -> None:
    with gateway_process(services) as second:
        command = await post(client)
        async with second.client(client.headers["X-API-Key"]) as other:
            seen = await other.get(command["links"]["self"])
            waiting = asyncio.ensure_future(other.get(command["links"]["self"], params={"wait": 30}))
            await finish(services, command["id"], reply=True)
            finished = await waiting

    assert (seen.status_code, seen.json()["status"]) == (200, "queued")
    assert finished.json()["status"] == "succeeded"


async def test_what_is_shown_of_a_command(services: Session, client: httpx.AsyncClient, owner: str) -> None:
    command = await post(client)
    async with database(services, "ish_worker") as connection:
        await connection.execute(
            """insert into attempts (publisher, id, day, attempt, token, worker, target, started_at, duration_seconds,
              outcome, error_code, error_message)
            select publisher, id, day, 1, 1, 'ai@host:1', 'local/small', now(), 0.25, 'retrying', 'provider_timeout',
              'no answer' from commands where id = $1""",
            UUID(command["id"]),
        )
    result = await finish(services, command["id"], reply=False)

    answer = await client.get(command["links"]["self"])

    view = answer.json()
    assert view["owner"] == owner
    assert view["accepted_at"] == command["accepted_at"]
    assert view["result"]["output"] == {"text": "done"}
    assert result in answer.content, "the result is shown byte for byte as it is stored and sent"
    [attempt] = view["attempts"]
    assert attempt["target"] == "local/small"
    assert attempt["error"] == {"code": "provider_timeout", "message": "no answer"}


async def test_wait_is_answered_by_the_reply(services: Session, client: httpx.AsyncClient) -> None:
    waiting = asyncio.ensure_future(
        client.post("/api/relay", json=RELAY, headers={"Prefer": "respond-async, wait=30", "Idempotency-Key": "w1"})
    )
    command_id = await _only_command(client)
    row = await recorded(services, command_id)
    result = await finish(services, command_id, reply=True)

    answer = await waiting

    assert row["reply_to"].startswith("reply.gateway.")
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.json()["status"] == "succeeded"
    assert result in answer.content


async def test_wait_is_answered_from_the_database_when_the_reply_is_lost(
    services: Session, client: httpx.AsyncClient
) -> None:
    waiting = asyncio.ensure_future(client.post("/api/relay?wait=30", json=RELAY))
    await finish(services, await _only_command(client), reply=False)

    answer = await waiting

    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


async def test_wait_that_is_too_short_is_answered_202(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/relay?wait=1", json=RELAY)

    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert "result" not in answer.json()


async def test_foreign_command_is_unknown(
    services: Session, gateway: GatewayProcess, client: httpx.AsyncClient
) -> None:
    command = await post(client)
    await finish(services, command["id"], reply=False)
    await client.get(command["links"]["self"])  # now it is in the cache, too

    async with gateway.client(await keys.create_key(services.postgres_url("ish_ops"), "stranger")) as stranger:
        read = await stranger.get(command["links"]["self"])
        cancelled = await stranger.delete(command["links"]["self"])
        listed = await stranger.get("/api/commands")

    assert (read.status_code, cancelled.status_code) == (404, 404)
    assert command["id"] not in listed.text


async def test_owner_sees_what_their_own_system_published_directly(
    services: Session, client: httpx.AsyncClient, owner: str
) -> None:
    command_id = uuid4()
    async with database(services, "ish_worker") as connection:
        await connection.execute(
            """with k as (insert into command_keys (publisher, id, fingerprint) values ($1, $2, '\\x00') returning *)
            insert into commands (publisher, id, day, kind, owner, state, routing_key, payload, accepted_at, deadline_at)
            select publisher, id, day, 'relay', $1, 'queued', 'relay', '{}', now(), now() + interval '1 h' from k""",
            owner,
            command_id,
        )

    read = await client.get(f"/api/commands/{command_id}")
    cancelled = await client.delete(f"/api/commands/{command_id}")

    assert (read.status_code, read.json()["status"]) == (200, "queued")
    assert cancelled.json()["status"] == "cancelled"


async def test_list_is_newest_first_in_pages_that_miss_and_repeat_nothing(client: httpx.AsyncClient) -> None:
    made = [(await post(client))["id"] for _ in range(7)]
    made += [(await post(client, "/api/send", json={"prompt": "x"}))["id"]]

    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        page = (await client.get("/api/commands", params={"limit": 3, **({"cursor": cursor} if cursor else {})})).json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    relays = (await client.get("/api/commands", params={"kind": "relay"})).json()["items"]
    failed = (await client.get("/api/commands", params={"status": "failed"})).json()["items"]

    assert seen[0] == made[-1]
    assert sorted(seen) == sorted(made)
    assert {one["id"] for one in relays} == set(made[:7])
    assert failed == []


async def test_cancel_ends_what_has_not_started_and_wakes_its_waiter(
    services: Session, client: httpx.AsyncClient
) -> None:
    waiting = asyncio.ensure_future(client.post("/api/relay?wait=30", json=RELAY))
    command_id = await _only_command(client)

    first = await client.delete(f"/api/commands/{command_id}")
    again = await client.delete(f"/api/commands/{command_id}")
    waited = await waiting

    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert first.json()["result"]["error"]["code"] == "cancelled"
    assert again.json() == first.json()
    assert (waited.status_code, waited.json()["status"]) == (200, "cancelled")
    async with database(services, "ish_ops") as connection:
        assert await connection.fetchval("select count(*) from outbox where id = $1", UUID(command_id)) == 1


@pytest.mark.parametrize("state", ["running", "succeeded"])
async def test_cancel_of_what_runs_or_has_ended_is_refused(
    services: Session, client: httpx.AsyncClient, state: str
) -> None:
    command = await post(client)
    async with database(services, "ish_worker") as connection:
        await connection.execute("update commands set state = $2 where id = $1", UUID(command["id"]), state)

    answer = await client.delete(command["links"]["self"])

    assert (answer.status_code, answer.json()["command_status"]) == (409, state)


async def test_unknown_command_is_404(client: httpx.AsyncClient) -> None:
    path = f"/api/commands/{uuid4()}"

    assert (await client.get(path)).status_code == 404
    assert (await client.delete(path)).status_code == 404


async def _only_command(client: httpx.AsyncClient) -> str:
    """The id of the one command of this client, as soon as it is recorded."""

    async def items() -> Any:
        return (await client.get("/api/commands")).json()["items"]

    [command] = await eventually(items)
    return str(command["id"])
