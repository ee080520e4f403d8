"""API keys over HTTP, and the commands that make and revoke them."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest

from ops.admin import keys
from ops.stack.session import Session
from tests.integration.gateway_process import GatewayProcess, database, eventually

PATH = "/api/commands"


@pytest.fixture
def url(services: Session) -> str:
    return services.postgres_url("ish_ops")


async def _status(gateway: GatewayProcess, headers: dict[str, str]) -> int:
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as client:
        return (await client.get(PATH, headers=headers)).status_code


async def test_key_is_taken_from_either_header(gateway: GatewayProcess, url: str) -> None:
    key = await keys.create_key(url, "demo")

    assert await _status(gateway, {"X-API-Key": key}) == 200
    assert await _status(gateway, {"Authorization": f"Bearer {key}"}) == 200


async def test_no_key_is_422_and_a_wrong_one_401(gateway: GatewayProcess, url: str) -> None:
    key = await keys.create_key(url, "demo")
    wrong_secret = key[:-43] + ("A" if key[-43] != "A" else "B") + key[-42:]
    unknown_id = "ish_" + "0" * 12 + key[16:]

    assert await _status(gateway, {}) == 422
    assert await _status(gateway, {"Authorization": "Basic abc"}) == 422
    for wrong in ("", "x", wrong_secret, unknown_id, key + "A", "ish-chat-secure-key-2024"):
        assert await _status(gateway, {"X-API-Key": wrong}) == 401
    assert await _status(gateway, {"X-API-Key": key}) == 200


async def test_revoked_key_is_refused_within_seconds(gateway: GatewayProcess, url: str) -> None:
    key = await keys.create_key(url, "demo")
    assert await _status(gateway, {"X-API-Key": key}) == 200

    assert await keys.revoke_key(url, key.split("_")[1])

    async def refused() -> bool:
        return await _status(gateway, {"X-API-Key": key}) == 401

    await eventually(refused)
    assert not await keys.revoke_key(url, key.split("_")[1])


async def test_expired_key_is_refused_though_it_is_cached(gateway: GatewayProcess, url: str) -> None:
    key = await keys.create_key(url, "demo", expires_at=datetime.now(UTC) + timedelta(seconds=1))
    assert await _status(gateway, {"X-API-Key": key}) == 200

    async def refused() -> bool:
        return await _status(gateway, {"X-API-Key": key}) == 401

    await eventually(refused)


async def test_new_key_is_valid_at_once_though_its_id_was_tried_before(
    services: Session, gateway: GatewayProcess, url: str
) -> None:
    key = await keys.create_key(url, "demo")
    async with database(services, "ish_ops") as connection:
        await connection.execute("update api_keys set revoked_at = now() where id = $1", key.split("_")[1])
    assert await _status(gateway, {"X-API-Key": key}) == 401

    async with database(services, "ish_ops") as connection:
        await connection.execute("update api_keys set revoked_at = null where id = $1", key.split("_")[1])

    assert await _status(gateway, {"X-API-Key": key}) == 200


async def test_many_requests_with_one_new_key_all_pass(gateway: GatewayProcess, url: str) -> None:
    key = await keys.create_key(url, "demo")

    async with gateway.client(key) as client:
        answers = await asyncio.gather(*(client.get(PATH) for _ in range(50)))

    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("owner", ["gateway", "admin", "", "Upper", "a" * 64, "a b", "a\0b"])
async def test_owner_that_could_be_mistaken_is_refused(url: str, owner: str) -> None:
    with pytest.raises(ValueError, match="an owner is"):
        await keys.create_key(url, owner)


async def test_secret_is_stored_nowhere_and_each_change_is_audited(services: Session, url: str) -> None:
    key = await keys.create_key(url, "audited", "a label")
    identity, secret = key.split("_", 2)[1:]
    await keys.revoke_key(url, identity)

    [record] = await keys.list_keys(url, "audited")
    async with database(services, "ish_owner") as connection:
        stored = await connection.fetchval("select k::text from api_keys k where id = $1", identity)
        actions = await connection.fetch(
            "select action, details from audit_log where subject = $1 order by seq", f"api_key {identity}"
        )
    assert (record.id, record.label, record.revoked_at is not None) == (identity, "a label", True)
    assert secret not in stored
    assert [row["action"] for row in actions] == ["key_created", "key_revoked"]
    assert secret not in str(actions)


async def test_gateway_can_neither_make_nor_change_keys(services: Session) -> None:
    async with database(services, "ish_gateway") as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("update api_keys set revoked_at = null")


def test_keys_are_made_listed_and_revoked_from_the_command_line(url: str) -> None:
    environment = {"PATH": os.environ["PATH"], "ISH_POSTGRES_URL": url}

    def ish_keys(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = "import sys; from ops.cli.keys import app; app(sys.argv[1:])"
        return subprocess.run(
            [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False
        )

    made = ish_keys("create", "cli", "--label", "by hand", "--days", "1")
    key_id = made.stdout.split("_")[1]
    listed = ish_keys("list", "--owner", "cli", "--json")
    revoked = ish_keys("revoke", key_id)
    again = ish_keys("revoke", key_id)
    refused = ish_keys("create", "gateway")

    assert made.stdout.startswith(f"ish_{key_id}_"), made.stderr
    assert key_id in listed.stdout
    assert made.stdout.strip().rpartition("_")[2] not in listed.stdout
    assert (revoked.returncode, again.returncode, refused.returncode) == (0, 1, 1)
    assert len(refused.stderr.strip().splitlines()) == 1
