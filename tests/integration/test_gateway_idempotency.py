"""Idempotency-Key: the same command again, whoever asks how often, and on whichever gateway."""

import asyncio
from collections.abc import Iterator
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
    finish,
    gateway_process,
    take,
)


@pytest.fixture(scope="module")
def gateways(services: Session) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    with gateway_process(services) as first, gateway_process(services) as second:
        yield first, second
    asyncio.run(empty_work_queues(services))


@pytest.fixture
async def clients(services: Session, gateways: tuple[GatewayProcess, GatewayProcess]) -> Any:
    key = await keys.create_key(services.postgres_url("ish_ops"), f"o{uuid4().hex[:10]}")
    first, second = gateways
    async with first.client(key) as one, second.client(key) as other:
        yield one, other


def _key() -> dict[str, str]:
    return {"Idempotency-Key": uuid4().hex}


async def test_same_key_and_body_is_the_same_command_on_every_gateway_and_is_published_once(
    services: Session, clients: tuple[httpx.AsyncClient, httpx.AsyncClient]
) -> None:
    await empty_work_queues(services)
    headers = _key()

    answers = [await client.post("/api/relay", json=RELAY, headers=headers) for client in clients * 2]

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1, "also its times are those of the first"
    assert len(await take(services, "ish.relay")) == 1


async def test_concurrent_requests_with_one_key_are_one_command(
    services: Session, clients: tuple[httpx.AsyncClient, httpx.AsyncClient]
) -> None:
    headers = _key()

    answers = await asyncio.gather(
        *(client.post("/api/relay", json=RELAY, headers=headers) for client in clients for _ in range(10))
    )

    assert {answer.status_code for answer in answers} == {202}
    [command_id] = {answer.json()["id"] for answer in answers}
    async with database(services, "ish_ops") as connection:
        assert await connection.fetchval("select count(*) from commands where id = $1", UUID(command_id)) == 1


async def test_another_body_under_the_key_is_422_also_when_both_come_at_once(
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    headers = _key()
    bodies = [{**RELAY, "message": str(number)} for number in range(6)]

    answers = await asyncio.gather(
        *(clients[number % 2].post("/api/relay", json=body, headers=headers) for number, body in enumerate(bodies))
    )

    assert sorted(answer.status_code for answer in answers) == [202, 422, 422, 422, 422, 422]
    refused = next(answer.json() for answer in answers if answer.status_code == 422)
    assert refused["type"] == "urn:ish:problem:idempotency-key-reused"
    assert refused["errors"][0]["field"] == "Idempotency-Key"


async def test_same_body_of_another_kind_is_another_body(
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    headers = _key()
    await clients[0].post("/api/send", json={"prompt": "x"}, headers=headers)

    answer = await clients[0].post("/api/relay", json=RELAY, headers=headers)

    assert answer.status_code == 422


async def test_another_owners_equal_key_is_another_command(
    services: Session,
    gateways: tuple[GatewayProcess, GatewayProcess],
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    headers = _key()
    mine = await clients[0].post("/api/relay", json=RELAY, headers=headers)

    async with gateways[0].client(await keys.create_key(services.postgres_url("ish_ops"), "another")) as another:
        theirs = await another.post("/api/relay", json={**RELAY, "message": "theirs"}, headers=headers)

    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine.json()["id"]


async def test_finished_command_answers_its_result_to_a_repeat_that_waits(
    services: Session, clients: tuple[httpx.AsyncClient, httpx.AsyncClient]
) -> None:
    headers = _key()
    first = await clients[0].post("/api/relay", json=RELAY, headers=headers)
    result = await finish(services, first.json()["id"], reply=False)
    await empty_work_queues(services)

    waited = await clients[1].post("/api/relay?wait=30", json=RELAY, headers=headers)
    not_waited = await clients[1].post("/api/relay", json=RELAY, headers=headers)

    assert (waited.status_code, waited.json()["status"]) == (200, "succeeded")
    assert result in waited.content
    assert (not_waited.status_code, not_waited.json()["status"]) == (202, "succeeded")
    assert await take(services, "ish.relay") == []


async def test_repeat_that_waits_for_a_running_command_gets_its_result(
    services: Session, clients: tuple[httpx.AsyncClient, httpx.AsyncClient]
) -> None:
    headers = _key()
    first = await clients[0].post("/api/relay", json=RELAY, headers=headers)

    waiting = asyncio.ensure_future(clients[1].post("/api/relay?wait=30", json=RELAY, headers=headers))
    await finish(services, first.json()["id"], reply=False)

    assert (await waiting).json()["result"]["output"] == {"text": "done"}


async def test_reserved_key_whose_publish_never_happened_is_published_by_the_repeat(
    services: Session, clients: tuple[httpx.AsyncClient, httpx.AsyncClient]
) -> None:
    await empty_work_queues(services)
    headers = _key()
    first = await clients[0].post("/api/relay", json=RELAY, headers=headers)
    command_id = UUID(first.json()["id"])
    async with database(services, "ish_owner") as connection:
        await connection.execute("delete from commands where id = $1", command_id)

    again = await clients[1].post("/api/relay", json=RELAY, headers=headers)

    assert again.json()["id"] == str(command_id)
    assert len(await take(services, "ish.relay")) == 2, "workers absorb the second"
