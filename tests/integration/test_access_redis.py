"""Each role has its own user of Redis, and what somebody plants in Redis becomes no answer."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from ops.stack.addresses import with_login
from ops.stack.binaries import Programs
from ops.stack.layout import Layout, Ports
from ops.stack.redis_server import RIGHTS
from ops.stack.redis_server import Redis as RedisServer
from ops.stack.secrets import write_private
from ops.stack.session import Session
from tests.integration.gateway_process import GatewayProcess
from workers.ai.answers.cache import cache_key, open_cache
from workers.ai.answers.call_record import Answer

KEYS = (
    "ish:result:o:1",
    "ish:tokens:p:1",
    "ish:answer:1",
    "ish:unrecorded:p:1",
    "{ish:ai}:tickets",
    "ish:other",
    "other",
)
READ = {
    "gateway": {"ish:result:o:1", "ish:tokens:p:1"},
    "worker": {"ish:tokens:p:1", "ish:answer:1", "ish:unrecorded:p:1", "{ish:ai}:tickets"},
    "ops": set(KEYS) - {"other"},
}
WRITTEN = {"gateway": READ["gateway"], "worker": READ["worker"], "ops": set[str]()}
PLANTED = Answer(text="planted", finish_reason="stop", provider="scripted", model="steady")
NOBODYS = (
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("CONFIG", "GET", "requirepass"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "default", "nopass"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("SCRIPT", "FLUSH"),
    ("SHUTDOWN",),
    ("SLAVEOF", "NO", "ONE"),
    ("MONITOR",),
    ("SWAPDB", "0", "1"),
    ("RENAME", "ish:result:o:1", "ish:answer:1"),
    ("EVAL", "return redis.call('get', 'other')", "0"),
    ("EVAL", "return redis.call('flushall')", "0"),
    ("PUBLISH", "other", "x"),
)


def allowed(client: "Redis", *words: str) -> bool:
    """Whether a command gets past the check of rights."""
    try:
        client.execute_command(*words)  # type: ignore[no-untyped-call]
    except NoPermissionError:
        return False
    except RedisError as error:
        # a script's own command is refused inside the script: Redis 6 and 7 say it in different words
        return not any(words in str(error).lower() for words in ("permission", "can't run", "can't access"))
    return True


@pytest.mark.parametrize("role", RIGHTS)
def test_a_role_touches_its_own_keys_with_its_own_commands(services: Session, role: str) -> None:
    with Redis.from_url(services.addresses.redis_by_role[role]) as client:
        assert client.ping()
        assert {key for key in KEYS if allowed(client, "GET", key)} == READ[role]
        assert {key for key in KEYS if allowed(client, "SET", key, "x", "PX", "1")} == WRITTEN[role]
        assert [words for words in NOBODYS if allowed(client, *words)] == []


@pytest.mark.parametrize("role", RIGHTS)
def test_a_role_needs_its_own_password(services: Session, role: str) -> None:
    url = services.addresses.redis_by_role[role]
    others = next(one for name, one in services.addresses.redis_by_role.items() if name != role)
    password = others.partition("@")[0].rpartition(":")[2]

    with Redis.from_url(with_login(url, role, password)) as client, pytest.raises(AuthenticationError):
        client.ping()


def test_no_process_is_given_the_user_that_may_do_everything(services: Session) -> None:
    for role in ("gateway", "worker", "outbox", "ops"):
        given = services.environment(role).get("ISH_REDIS_URL_FILE")
        content = Path(given).read_text(encoding="utf-8") if given else ""
        assert content == services.addresses.redis_by_role.get(role, "")
        assert services.redis_url not in content or not content


def test_passwords_and_configuration_are_private(services: Session) -> None:
    secrets = [services.layout.secrets_dir / name for name in ("redis", *(f"redis-{role}" for role in RIGHTS))]
    files = [*secrets, services.layout.folder("redis") / "redis.conf"]

    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert len({file.read_text() for file in secrets}) == len(secrets)


def test_an_earlier_state_folder_keeps_its_password_and_gets_the_roles(tmp_path: Path) -> None:
    layout = Layout(tmp_path, Ports.at(0))
    layout.create()
    write_private(layout.secrets_dir / "redis", "as-it-was")

    first = RedisServer(layout, Programs(tmp_path, (7, 0)))
    first.prepare()
    again = RedisServer(layout, Programs(tmp_path, (7, 0)))

    assert first.url == again.url == "redis://:as-it-was@127.0.0.1:6380/0"
    assert {role: first.url_of(role) for role in RIGHTS} == {role: again.url_of(role) for role in RIGHTS}
    lines = (layout.folder("redis") / "redis.conf").read_text().splitlines()
    assert "requirepass as-it-was" in lines
    assert [line.split()[1] for line in lines if line.startswith("user ")] == list(RIGHTS)


async def test_a_planted_result_is_not_shown(
    services: Session, gateway: GatewayProcess, client: httpx.AsyncClient, owner: str
) -> None:
    del gateway
    unknown = uuid4()
    planted = json.dumps({"id": str(unknown), "status": "succeeded", "result": {"text": "planted"}})
    with Redis.from_url(services.redis_url) as redis:
        redis.set(f"ish:result:{owner}:{unknown}", planted)

    answer = await client.get(f"/api/commands/{unknown}")

    assert answer.status_code == httpx.codes.NOT_FOUND


@pytest.mark.parametrize("value", [b"", b"{}", PLANTED.model_dump_json().encode()])
async def test_a_planted_answer_is_asked_for_all_the_same(services: Session, value: bytes) -> None:
    key = cache_key("demo", prompt=uuid4().hex)

    async def make() -> Answer:
        return PLANTED.model_copy(update={"text": "asked"})

    with Redis.from_url(services.redis_url) as redis:
        redis.set(f"ish:answer:{key}", value, ex=60)
        async with open_cache(services.addresses.redis_by_role["worker"], keep_seconds=60) as cache:
            found: Any = await cache.answer(key, make)

    assert found.text == "asked"
