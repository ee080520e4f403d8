"""`ish commands` against a real gateway: what it shows, what it refuses, and its exit status."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from ops.admin import keys
from ops.stack.session import Session
from tests.integration.gateway_process import (
    GatewayProcess,
    database,
    eventually,
    finish,
    free_port,
    post,
    recorded,
)

DETAILS = {
    "route": {
        "policy": "priority",
        "alias": "default",
        "candidates": [
            {"target": "zai/glm-4-flash", "score": None, "reason": "first of the alias"},
            {"target": "local/small", "score": 0.25, "reason": "second [of] the alias"},
        ],
        "left_out": [{"target": "other/tiny", "score": None, "reason": "too small"}],
    },
    "calls": [
        {"target": "zai/glm-4-flash", "outcome": "provider_rate_limited", "message": "slow down", "seconds": 0.2},
        {"target": "local/small", "outcome": "ok", "seconds": 1.5, "first_token_seconds": 0.5, "tokens_in": 3},
    ],
}
OUTPUT = {"text": "[bold]Hello[/bold]"}


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody at a terminal, with a gateway's address and a key."""

    url: str
    key: str
    folder: Path

    async def ish(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "ops", "commands", *arguments],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "ISH_STATE_DIR": str(self.folder),
                "ISH_GATEWAY_URL": self.url,
                "ISH_API_KEY": self.key,
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
async def operator(services: Session, gateway: GatewayProcess, tmp_path: Path) -> Operator:
    key = await keys.create_key(services.postgres_url("ish_ops"), f"o{uuid4().hex[:10]}")
    return Operator(gateway.url, key, tmp_path)


@pytest.fixture
async def client(gateway: GatewayProcess, operator: Operator) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client(operator.key) as one:
        yield one


async def _answered(services: Session, client: httpx.AsyncClient) -> str:
    """A finished command with one attempt on record."""
    command_id = str((await post(client, "/api/send", json={"prompt": "hello"}))["id"])
    await eventually(lambda: recorded(services, command_id))
    async with database(services, "ish_worker") as connection:
        await connection.execute(
            """insert into attempts (publisher, id, day, attempt, token, worker, target, started_at, duration_seconds,
              outcome, tokens_in, tokens_out, cost_usd, details)
            select publisher, id, day, 1, 1, 'ai@host:1', 'local/small', now(), 1.75, 'succeeded', 3, 40, 0.000083, $2
            from commands where id = $1""",
            UUID(command_id),
            json.dumps(DETAILS),
        )
    await finish(services, command_id, reply=False, output=OUTPUT)
    return command_id


async def test_show_explains_how_an_answer_came_about(
    services: Session, client: httpx.AsyncClient, operator: Operator
) -> None:
    command_id = await _answered(services, client)

    shown = await operator.ish("show", command_id, COLUMNS="240")

    assert shown.returncode == 0, shown.stderr
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert lines[0] == f"ai.send {command_id}: succeeded"
    for line in (
        "attempt 1: succeeded, local/small, 1.75 s, 3 -> 40 tokens, $0.000083, by ai@host:1",
        "routing: alias default, policy priority",
        "1 zai/glm-4-flash first of the alias",
        "2 local/small 0.25 second [of] the alias",
        "- other/tiny too small",
        "1 zai/glm-4-flash provider_rate_limited 0.20 s slow down",
        "2 local/small ok 1.50 s 0.50 s 3 -> ? tokens",
        '"text": "[bold]Hello[/bold]"',
    ):
        assert line in lines, shown.stdout


async def test_show_for_programs_is_what_the_gateway_says(
    services: Session, client: httpx.AsyncClient, operator: Operator
) -> None:
    command_id = await _answered(services, client)

    shown = await operator.ish("show", f"chatcmpl-{command_id}", "--json")

    document: Any = json.loads(shown.stdout)
    assert document == (await client.get(f"/api/commands/{command_id}")).json()
    [attempt] = document["attempts"]
    assert attempt["details"] == DETAILS
    assert (attempt["tokens_in"], attempt["tokens_out"], attempt["cost_usd"]) == (3, 40, 0.000083)


async def test_list_filters_and_cancel_cancels(client: httpx.AsyncClient, operator: Operator) -> None:
    relay, question = await post(client), await post(client, "/api/send", json={"prompt": "hello"})

    cancelled = await operator.ish("cancel", question["id"])
    again = await operator.ish("list", "--status", "cancelled", "--json")
    relays = await operator.ish("list", "--kind", "relay")

    assert (cancelled.returncode, cancelled.stdout) == (0, f"cancelled {question['id']}\n")
    assert [one["id"] for one in json.loads(again.stdout)] == [question["id"]]
    assert relay["id"] in relays.stdout
    assert question["id"] not in relays.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        (("show", "nothing"), {}, 2, "is no command id"),
        (("show", str(UUID(int=1))), {}, 1, "You have no command"),
        (("cancel", str(UUID(int=1))), {}, 1, "You have no command"),
        (("list", "--kind", "email"), {}, 2, "is not one of"),
        (("list",), {"ISH_API_KEY": "ish_nothing"}, 1, "unknown, revoked or expired"),
        (("list",), {"ISH_GATEWAY_URL": "nothing"}, 2, "is not the address of a gateway"),
        (("list",), {"ISH_GATEWAY_URL": ""}, 2, "set ISH_GATEWAY_URL"),
    ],
)
async def test_what_cannot_be_done_is_one_line(
    operator: Operator, arguments: tuple[str, ...], environment: dict[str, str], code: int, said: str
) -> None:
    ended = await operator.ish(*arguments, **environment)

    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stdout == ""


async def test_gateway_that_is_not_there_is_one_line(operator: Operator) -> None:
    ended = await operator.ish("list", ISH_GATEWAY_URL=f"http://127.0.0.1:{free_port()}")

    assert ended.returncode == 1
    assert "does not answer" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
