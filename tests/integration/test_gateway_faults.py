"""The gateway while the broker, PostgreSQL or Redis are stopped or frozen, and its own start and end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from ops.admin import keys
from ops.stack.session import Session
from tests.integration.gateway_process import (
    RELAY,
    GatewayProcess,
    empty_work_queues,
    eventually,
    finish,
    frozen,
    gateway_process,
    post,
    recorded,
    take,
    wait_ready,
)

PROMISED_SECONDS = 2.0
PATIENCE = 5
"""A time limit is this often what is promised."""


@pytest.fixture
async def client(services: Session, gateway: GatewayProcess) -> Any:
    key = await keys.create_key(services.postgres_url("ish_ops"), f"o{uuid4().hex[:10]}")
    async with gateway.client(key) as one:
        assert (await one.get("/api/commands")).status_code == 200, "the key is known here"
        yield one


async def _timed(request: Any) -> httpx.Response:
    async with asyncio.timeout(PROMISED_SECONDS * PATIENCE):
        answer: httpx.Response = await request
    return answer


async def _recorded(services: Session, answer: httpx.Response) -> Any:
    command_id = answer.json()["id"]
    return await eventually(lambda: recorded(services, command_id))


async def test_broker_stopped_is_503_with_retry_after_and_then_all_is_well(
    services: Session, gateway: GatewayProcess, client: httpx.AsyncClient
) -> None:
    services.broker.kill()
    try:
        answers = [await _timed(client.post("/api/relay", json=RELAY)) for _ in range(2)]
        live = await client.get("/health")
        ready = await client.get("/ready")
    finally:
        services.broker.start()

    for answer in answers:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
    assert answers[-1].json()["type"] == "urn:ish:problem:broker-unavailable"
    assert live.status_code == 200
    assert ready.status_code == 503
    assert (ready.json()["broker"], ready.json()["replies"]) == ("away", "away")
    await asyncio.to_thread(wait_ready, gateway)
    assert (await client.post("/api/relay", json=RELAY)).status_code == 202


async def test_broker_frozen_is_503_with_the_id_and_the_same_key_is_the_same_command(
    services: Session, client: httpx.AsyncClient
) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    with frozen(services.broker):
        answer = await _timed(client.post("/api/relay", json=RELAY, headers=headers))

    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    problem = answer.json()
    assert problem["type"] == "urn:ish:problem:not-confirmed"

    async def accepted() -> str | None:
        again = await client.post("/api/relay", json=RELAY, headers=headers)
        return str(again.json()["id"]) if again.status_code == 202 else None

    assert await eventually(accepted) == problem["id"]


async def test_postgres_stopped_commands_are_accepted_shown_and_recorded_after_it(
    services: Session, client: httpx.AsyncClient
) -> None:
    finished = await post(client)
    await finish(services, finished["id"], reply=False)
    await client.get(finished["links"]["self"])
    await empty_work_queues(services)
    services.postgres.stop()
    try:
        answers = [await _timed(client.post("/api/relay", json=RELAY)) for _ in range(3)]
        keyed = await _timed(client.post("/api/relay", json=RELAY, headers={"Idempotency-Key": uuid4().hex}))
        shown = await _timed(client.get(answers[0].headers["location"]))
        cached = await _timed(client.get(finished["links"]["self"]))
        unknown = await _timed(client.get(f"/api/commands/{uuid4()}"))
        listed = await _timed(client.get("/api/commands"))
        cancelled = await _timed(client.delete(answers[0].headers["location"]))
        ready = await client.get("/ready")
    finally:
        services.postgres.start()

    accepted = [*answers, keyed]
    assert {answer.status_code for answer in accepted} == {202}
    assert {message.message_id for message in await take(services, "ish.relay")} == {
        answer.json()["id"] for answer in accepted
    }
    assert (shown.status_code, shown.json()["status"]) == (200, "queued")
    assert (cached.status_code, cached.json()["status"]) == (200, "succeeded")
    for refused in (unknown, listed, cancelled):
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:ish:problem:storage-unavailable")
    assert (ready.status_code, ready.json()["status"], ready.json()["postgres"]) == (200, "degraded", "away")
    for answer in accepted:
        assert (await _recorded(services, answer))["state"] == "queued"


async def test_postgres_frozen_holds_no_request(
    services: Session, gateway: GatewayProcess, client: httpx.AsyncClient
) -> None:
    stranger_key = await keys.create_key(services.postgres_url("ish_ops"), "not-seen-yet")
    with frozen(services.postgres):
        accepted = await asyncio.gather(*(_timed(client.post("/api/relay", json=RELAY)) for _ in range(20)))
        keyed = await _timed(client.post("/api/relay", json=RELAY, headers={"Idempotency-Key": uuid4().hex}))
        unknown = await asyncio.gather(*(_timed(client.get(f"/api/commands/{uuid4()}")) for _ in range(20)))
        async with gateway.client(stranger_key) as stranger:
            unchecked = await _timed(stranger.post("/api/relay", json=RELAY))
        waited = await _timed(client.post("/api/relay?wait=1", json=RELAY))

    assert {answer.status_code for answer in (*accepted, keyed, waited)} == {202}
    assert {answer.status_code for answer in unknown} == {503}
    assert (unchecked.status_code, unchecked.headers["retry-after"]) == (503, "1")
    for answer in accepted:
        assert await _recorded(services, answer)


async def test_known_key_outlives_its_cache_while_postgres_is_away_but_not_its_grace(services: Session) -> None:
    key = await keys.create_key(services.postgres_url("ish_ops"), "patient")
    with gateway_process(services, ISH_KEY_CACHE_SECONDS="0.2", ISH_KEY_GRACE_SECONDS="3") as gateway:
        async with gateway.client(key) as client:
            await post(client)
            services.postgres.stop()
            try:
                await asyncio.sleep(0.5)  # older than the cache allows
                stale = await client.post("/api/relay", json=RELAY)

                async def refused() -> bool:
                    return (await client.post("/api/relay", json=RELAY)).status_code == 503

                await eventually(refused)
            finally:
                services.postgres.start()
    assert stale.status_code == 202


async def test_idempotency_holds_on_this_gateway_while_postgres_is_away(
    services: Session, client: httpx.AsyncClient
) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    await empty_work_queues(services)
    services.postgres.stop()
    try:
        first = await client.post("/api/relay", json=RELAY, headers=headers)
        again = await client.post("/api/relay", json=RELAY, headers=headers)
        other = await client.post("/api/relay", json={**RELAY, "message": "other"}, headers=headers)
    finally:
        services.postgres.start()

    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 422)
    assert first.text == again.text
    assert len(await take(services, "ish.relay")) == 1


async def test_redis_frozen_or_stopped_no_command_is_unknown(services: Session, client: httpx.AsyncClient) -> None:
    command = await post(client)
    await finish(services, command["id"], reply=False)
    with frozen(services.redis):
        while_frozen = await _timed(client.get(command["links"]["self"]))
        ready = await client.get("/ready")
    await client.get(command["links"]["self"])
    services.redis.stop()
    try:
        while_stopped = await _timed(client.get(command["links"]["self"]))
    finally:
        services.redis.start()
    afterwards = await client.get(command["links"]["self"])

    assert {one.status_code for one in (while_frozen, while_stopped, afterwards)} == {200}
    assert while_frozen.text == while_stopped.text == afterwards.text
    assert ready.json()["status"] == "degraded"


async def test_closed_connection_of_replies_is_opened_again_and_no_waiter_misses_its_result(
    services: Session, client: httpx.AsyncClient
) -> None:
    async def reply_to() -> str | None:
        command_id = (await client.post("/api/relay?wait=1", json=RELAY)).json()["id"]
        address: str | None = (await recorded(services, command_id))["reply_to"]
        return address

    before = await eventually(reply_to)
    headers = {"Idempotency-Key": uuid4().hex}
    waiting = asyncio.ensure_future(client.post("/api/relay?wait=30", json=RELAY, headers=headers))
    async with httpx.AsyncClient(base_url=services.management_url, trust_env=False) as management:

        async def closed() -> bool:
            names = [
                one["name"]
                for one in (await management.get("/api/connections")).json()
                if one.get("user_provided_name") == "gateway replies"
            ]
            for name in names:
                await management.delete(f"/api/connections/{quote(name, safe='')}")
            return bool(names)

        await eventually(closed)

    async def another() -> bool:
        return await reply_to() not in {None, before}

    assert await eventually(another)
    command_id = (await client.post("/api/relay", json=RELAY, headers=headers)).json()["id"]
    await finish(services, command_id, reply=False)
    assert (await waiting).json()["status"] == "succeeded"


async def test_stop_answers_who_waits_and_ends_cleanly(services: Session) -> None:
    key = await keys.create_key(services.postgres_url("ish_ops"), "stopping")
    with gateway_process(services) as gateway:
        async with gateway.client(key) as client:
            waiting = asyncio.ensure_future(client.post("/api/relay?wait=60", json=RELAY))

            async def commands() -> Any:
                return (await client.get("/api/commands")).json()["items"]

            await eventually(commands)
            code = await asyncio.to_thread(gateway.stop)
            answer = await waiting

        assert (answer.status_code, code) == (202, 0)
        assert "process_stopped" in gateway.log.read_text()
        assert "Traceback" not in gateway.log.read_text()


async def test_stop_records_what_was_accepted_just_before(services: Session) -> None:
    key = await keys.create_key(services.postgres_url("ish_ops"), "stopping")
    with gateway_process(services) as gateway:
        async with gateway.client(key) as client:
            await post(client)
            with frozen(services.postgres):
                command = await post(client)
                gateway.process.send(signal.SIGTERM)
            assert await asyncio.to_thread(gateway.ended) == 0
    assert (await recorded(services, command["id"]))["state"] == "queued"


@pytest.mark.parametrize("service", ["broker", "postgres", "redis"])
async def test_stop_does_not_hang_on_a_frozen_service(services: Session, service: str) -> None:
    with gateway_process(services) as gateway:
        with frozen(getattr(services, service)):
            assert await asyncio.to_thread(gateway.stop) == 0
        assert "Traceback" not in gateway.log.read_text()


async def test_starts_while_broker_and_database_are_away_and_is_ready_when_they_are_back(services: Session) -> None:
    with ExitStack() as away:
        away.enter_context(frozen(services.broker))
        away.enter_context(frozen(services.postgres))
        with gateway_process(services, expect="unready") as gateway:
            away.close()
            await asyncio.to_thread(wait_ready, gateway)
            async with gateway.client(await keys.create_key(services.postgres_url("ish_ops"), "early")) as client:
                await post(client)


def test_missing_setting_and_a_wrong_user_are_one_line(services: Session) -> None:
    given = {"PATH": os.environ["PATH"], **services.environment("gateway")}
    missing = {name: value for name, value in given.items() if not name.startswith("ISH_POSTGRES")}
    foreign = {**given, **services.environment("worker")}

    for environment, word in ((missing, "ISH_POSTGRES_URL"), (foreign, "'gateway'")):
        ended = _run(environment)
        assert ended.returncode == 2
        assert word in ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1


def test_port_in_use_is_one_line_that_names_it(services: Session) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        ended = _run({"PATH": os.environ["PATH"], **services.environment("gateway"), "ISH_GATEWAY_PORT": port})

    assert ended.returncode == 1
    assert port in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def _run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
