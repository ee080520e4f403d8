"""A service whose port accepts and closes at once ends no process: what needs it waits, what can do without goes on."""

from urllib.parse import urlsplit

from tests.acceptance.load import RELAY
from tests.acceptance.outsider import Outsider
from tests.acceptance.records import until
from tests.acceptance.slamming_door import Door, slamming_door
from tests.acceptance.stage import Stage, free_port

SLAMMED = 6


def address(stage: Stage, name: str, door: Door) -> dict[str, str]:
    """A setting that names a door; in a file, as the others of a stage are."""
    path = stage.folder / f"{name}-{urlsplit(door.url).port}"
    path.write_text(door.url, encoding="utf-8")
    return {f"{name}_FILE": str(path)}


async def test_commands_go_on_while_redis_closes_every_connection(stage: Stage, demo: Outsider) -> None:
    provider = await stage.provider()
    async with slamming_door(stage.services.redis_url) as redis:
        worker = stage.worker(
            "ai", ISH_PROVIDERS_FILE=str(provider.providers_file), **address(stage, "ISH_REDIS_URL", redis)
        )
        gateway, client = await stage.gateway_process(**address(stage, "ISH_REDIS_URL", redis), status="degraded")
        ids = await demo.publish_all(
            [demo.command("ai.send.v1", {"prompt": "hello", "stream": True}) for _ in range(10)]
        )
        asked = (await client.post("/api/send", json={"prompt": "hello", "stream": True})).json()["id"]
        events = (await client.get(f"/api/commands/{asked}/events")).text
        await until("all are answered", lambda: demo.answered(ids))
        await until("it was slammed", lambda: redis.slammed >= SLAMMED)

        assert worker.running
        assert gateway.running
        assert {demo.reply(one)["status"] for one in ids} == {"succeeded"}
        assert "succeeded" in events

        redis.is_open.set()
        await stage.line_of(worker, "redis_reachable")
        assert await stage.stopped(worker) == 0


async def test_commands_wait_while_the_broker_and_postgres_close_every_connection(stage: Stage, demo: Outsider) -> None:
    async with (
        slamming_door(stage.services.amqp_url("worker")) as broker,
        slamming_door(stage.services.postgres_url("ish_worker")) as postgres,
        slamming_door(stage.services.postgres_url("ish_outbox")) as outbox_postgres,
        slamming_door(stage.services.amqp_url("gateway")) as gateway_broker,
        slamming_door(stage.services.postgres_url("ish_gateway")) as gateway_postgres,
    ):
        doors = (broker, postgres, outbox_postgres, gateway_broker, gateway_postgres)
        worker = stage.worker(
            "relay", **address(stage, "ISH_AMQP_URL", broker), **address(stage, "ISH_POSTGRES_URL", postgres)
        )
        outbox = stage.worker("outbox", **address(stage, "ISH_POSTGRES_URL", outbox_postgres))
        gateway = stage.start(
            "gateway",
            "gateway",
            role="gateway",
            **address(stage, "ISH_AMQP_URL", gateway_broker),
            **address(stage, "ISH_POSTGRES_URL", gateway_postgres),
            ISH_GATEWAY_PORT=str(free_port()),
        )
        ids = await demo.publish_all([demo.command("relay.v1", RELAY) for _ in range(10)])
        postgres.is_open.set()  # a worker registers before it connects to the broker
        for door in (broker, outbox_postgres, gateway_broker):
            await until("it was slammed", lambda door=door: door.slammed >= SLAMMED)  # type: ignore[misc]  # bound at once
        assert (worker.running, outbox.running, gateway.running) == (True, True, True)

        for door in doors:
            door.is_open.set()
        await until("all are answered", lambda: demo.answered(ids))

        assert {demo.reply(one)["status"] for one in ids} == {"succeeded"}
        assert [await stage.stopped(one) for one in (worker, outbox, gateway)] == [0, 0, 0]
