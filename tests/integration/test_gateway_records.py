"""What commands leave behind, over HTTP: conversations, artifacts, devices; and the plans of the queries for them."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from contracts.commands import KINDS
from contracts.database import SERVER_SETTINGS
from contracts.envelope import Envelope
from contracts.tables import COMMAND, FINGERPRINT, CommandRow
from gateway.routes import artifacts, records
from gateway.services import command_rows, idempotency, recorder, result_waiters
from ops.admin import keys
from ops.stack.session import Session
from tests.integration.gateway_process import GatewayProcess, database

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"


async def _say(connection: Any, owner: str, text: str, accepted_at: datetime, position: int = 0) -> None:
    await connection.execute(
        """insert into messages (publisher, command_id, position, owner, conversation_id, sender, text, metadata,
          sent_at, accepted_at) values ('gateway', $1, $2, $3, 'talk', 'user', $4, '{"a": [1]}', $5, $5)""",
        uuid4(),
        position,
        owner,
        text,
        accepted_at,
    )


async def test_conversation_is_read_oldest_first_in_pages(
    services: Session, client: httpx.AsyncClient, owner: str
) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    async with database(services, "ish_worker") as connection:
        for number in range(5):
            # two lines share a time: the page must end between them without losing one
            await _say(connection, owner, f"line {number}", start + timedelta(seconds=number // 2))
        await _say(connection, "someone-else", "foreign", start)

    first = (await client.get("/api/conversations/talk/messages", params={"limit": 3})).json()
    second = (
        await client.get("/api/conversations/talk/messages", params={"limit": 3, "cursor": first["next_cursor"]})
    ).json()

    lines = [one["message"] for one in first["items"] + second["items"]]
    assert sorted(lines) == [f"line {number}" for number in range(5)]
    assert lines[-1] == "line 4"
    assert first["items"][0]["metadata"] == {"a": [1]}
    assert second["next_cursor"] is None
    assert (await client.get("/api/conversations/other/messages")).json() == {"items": [], "next_cursor": None}


async def test_artifact_is_for_its_owners_whole_or_in_part_and_need_not_be_sent_twice(
    services: Session, gateway: GatewayProcess, client: httpx.AsyncClient, owner: str
) -> None:
    name = hashlib.sha256(PNG).hexdigest()
    async with database(services, "ish_worker") as connection:
        await connection.execute(
            "insert into artifacts values ($1, 'image/png', $2, $3) on conflict do nothing", name, len(PNG), PNG
        )
        await connection.execute("insert into artifact_owners values ($1, $2, 'gateway', $3)", name, owner, uuid4())

    picture = await client.get(f"/api/artifacts/{name}")
    again = await client.get(f"/api/artifacts/{name}", headers={"If-None-Match": picture.headers["etag"]})
    async with gateway.client(await keys.create_key(services.postgres_url("ish_ops"), "stranger")) as stranger:
        foreign = await stranger.get(f"/api/artifacts/{name}", headers={"If-None-Match": picture.headers["etag"]})

    assert picture.content == PNG
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert (again.status_code, again.content) == (304, b"")
    assert foreign.status_code == 404

    tag = picture.headers["etag"]
    for asked, status, content, place in (
        ({"Range": "bytes=1-3"}, 206, PNG[1:4], f"bytes 1-3/{len(PNG)}"),
        ({"Range": "bytes=4-", "If-Range": tag}, 206, PNG[4:], f"bytes 4-{len(PNG) - 1}/{len(PNG)}"),
        ({"Range": "bytes=-2"}, 206, PNG[-2:], f"bytes {len(PNG) - 2}-{len(PNG) - 1}/{len(PNG)}"),
        ({"Range": "bytes=99-"}, 416, b"", f"bytes */{len(PNG)}"),
        ({"Range": "bytes=1-3", "If-Range": '"other"'}, 200, PNG, None),
        ({"Range": "bytes=0-1,3-4"}, 200, PNG, None),
    ):
        part = await client.get(f"/api/artifacts/{name}", headers=asked)
        assert (part.status_code, part.content, part.headers.get("content-range")) == (status, content, place)


async def test_device_counts_as_connected_only_while_a_worker_says_so(
    services: Session, client: httpx.AsyncClient
) -> None:
    async with database(services, "ish_worker") as connection:
        await connection.executemany(
            """insert into devices (serial, host, transport, state, hint, model, battery_percent, seen_at, updated_at)
            values ($1, 'h', $1, $2, $3, $4, $5, now(), clock_timestamp() - $6::interval)
            on conflict (serial) do update set state = excluded.state, updated_at = excluded.updated_at""",
            [
                ("A-GONE", "device", None, "Old", 11, timedelta(minutes=5)),
                ("B-LOCKED", "unauthorized", "accept the prompt", None, None, timedelta()),
                ("C-READY", "device", None, "Pixel", 80, timedelta()),
            ],
        )
    try:
        status = (await client.get("/api/android/status")).json()
    finally:
        async with database(services, "ish_owner") as connection:
            await connection.execute("delete from devices where serial = any($1)", ["A-GONE", "B-LOCKED", "C-READY"])

    shown = {one["serial"]: one for one in status["devices"]}
    assert (status["connected"], status["model"], status["battery"]) == (True, "Pixel", 80)
    assert [shown[name]["connected"] for name in ("A-GONE", "B-LOCKED", "C-READY")] == [False, False, True]
    assert shown["B-LOCKED"]["hint"] == "accept the prompt"


_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
_ENVELOPES = [Envelope("gateway", UUID(int=one), KINDS["relay"], "o", _MOMENT, _MOMENT) for one in range(50)]
_ACCEPTED = [CommandRow(envelope, b"", "relay", "{}", repeatable=True) for envelope in _ENVELOPES]
_PARAMETERS: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "one command": (command_rows.ONE, ("gateway", UUID(int=1), "o"), "commands_"),
    "a page of commands": (
        command_rows.PAGE,
        ("o", datetime(2026, 1, 1, tzinfo=UTC), UUID(int=0), None, None, 50),
        "owner_accepted_at_id",
    ),
    "finished commands": (result_waiters.FINISHED, (["gateway"] * 50, [UUID(int=1)] * 50), "_pkey"),
    "a conversation": (
        records.MESSAGES,
        ("o", "c", datetime(2026, 1, 1, tzinfo=UTC), UUID(int=0), 0, 50),
        "messages_by_conversation",
    ),
    "recording": (
        recorder.RECORD,
        (*COMMAND.arrays(_ACCEPTED), *FINGERPRINT.arrays(_ACCEPTED)),
        "command_keys_pkey",
    ),
    "idempotency keys": (idempotency.READ, (["gateway"] * 50, [UUID(int=1)] * 50), "_pkey"),
    "an artifact": (artifacts.ARTIFACT, ("a" * 64, "o", 1, 9), "artifacts_pkey"),
    "what an artifact is": (artifacts.FACTS, ("a" * 64, "o"), "artifacts_pkey"),
}


@pytest.mark.parametrize("name", _PARAMETERS)
async def test_hot_query_uses_its_index_on_empty_tables_too(services: Session, name: str) -> None:
    query, parameters, index = _PARAMETERS[name]
    async with database(services, "ish_gateway") as connection:
        for setting, value in SERVER_SETTINGS.items():
            await connection.execute("select set_config($1, $2, false)", setting, value)
        rows = await connection.fetch(f"explain {query}", *parameters)

    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan, plan
    assert "Join Filter" not in plan, f"it reads more keys than it was asked for:\n{plan}"
    assert index in plan, plan
