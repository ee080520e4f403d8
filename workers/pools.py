"""Puts a worker together: which pool consumes which queue with which handler, in what order things open and close."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from yarl import URL

from contracts import topology
from contracts.commands import KIND_AI, KIND_ANDROID, KIND_RELAY
from contracts.database import AWAY, open_pool
from contracts.logs import get_logger
from contracts.metrics import serve_metrics
from contracts.publisher import Publisher
from contracts.settings import Settings, secret_from_environment, stop
from workers.consume import Consumer, Pool
from workers.handler import Handler
from workers.intake import Intake
from workers.killpoints import KillPoints
from workers.registry import Registration
from workers.relay import relay
from workers.settling import Settling
from workers.stopping import end


class NothingToConsume(Exception):
    """There was no live consumer for too long: better start over than look alive."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a pool's worker is opened."""

    pool: Callable[[Settings], Pool]
    handler: Callable[[Settings, Any], AbstractAsyncContextManager[Handler]]
    """Opens what the handler needs; it gets the settings and the database pool."""


@asynccontextmanager
async def _relay(_: Settings, __: Any) -> AsyncIterator[Handler]:
    yield relay


@asynccontextmanager
async def _ai(configuration: Settings, _: Any) -> AsyncIterator[Handler]:
    from workers.ai import client, handler  # noqa: PLC0415  # each pool loads its own world only
    from workers.ai.configuration import Configuration, ConfigurationError, load  # noqa: PLC0415  # as above

    try:
        providers = (
            load(Path(configuration.providers_file), secret_from_environment=secret_from_environment)
            if configuration.providers_file
            else Configuration()
        )
    except ConfigurationError as error:
        stop(str(error))
    async with client.open_client() as http:
        yield handler.build(providers, client=http)


@asynccontextmanager
async def _android(configuration: Settings, database: Any) -> AsyncIterator[Handler]:
    from workers.android import handler  # noqa: PLC0415  # as above
    from workers.android.devices import parse_servers  # noqa: PLC0415  # as above
    from workers.devices import recorded_devices  # noqa: PLC0415  # as above

    try:
        servers = parse_servers(configuration.adb_servers)
    except ValueError as error:
        stop(f"ISH_ADB_SERVERS: {error}")
    async with recorded_devices(servers, database):
        yield handler.build(configuration)


POOLS: dict[str, Opening] = {
    "relay": Opening(
        lambda s: Pool("relay", topology.RELAY, frozenset({KIND_RELAY}), s.relay_prefetch, at_once=True), _relay
    ),
    "ai": Opening(lambda s: Pool("ai", topology.AI, frozenset({KIND_AI}), s.ai_prefetch), _ai),
    "android": Opening(
        lambda s: Pool("android", topology.ANDROID, frozenset({KIND_ANDROID}), s.android_prefetch), _android
    ),
}


async def serve(opening: Opening, configuration: Settings, stopping: asyncio.Event) -> None:
    """Run one worker until it is asked to stop, then finish or hand back what it holds.

    Args:
        opening: Which pool.
        configuration: Settings.
        stopping: Set by SIGTERM.

    Raises:
        NothingToConsume: There was no live consumer for `watchdog_seconds`.
    """
    pool = opening.pool(configuration)
    metrics_port = serve_metrics(configuration.metrics_host, configuration.metrics_port)
    database = await open_pool(
        configuration.postgres_url, size=configuration.postgres_pool_size, name=f"ish {pool.name}"
    )
    registration = Registration(
        database,
        pool_name=pool.name,
        metrics_port=metrics_port,
        lease_seconds=configuration.lease_seconds,
        heartbeat_seconds=configuration.heartbeat_seconds,
    )
    try:
        async with opening.handler(configuration, database) as handler:
            await _register(registration, stopping)
            if not stopping.is_set():
                await _serve(
                    pool,
                    handler,
                    configuration=configuration,
                    database=database,
                    registration=registration,
                    stopping=stopping,
                )
    finally:
        await _close(database, registration)


async def _serve(
    pool: Pool,
    handler: Handler,
    *,
    configuration: Settings,
    database: Any,
    registration: Registration,
    stopping: asyncio.Event,
) -> None:
    kill_points = KillPoints(configuration.kill_point, configuration.kill_mark)
    publisher = Publisher(
        configuration.amqp_url, name=f"ish {pool.name} publisher", timeout_seconds=configuration.publish_timeout_seconds
    )
    intake = Intake(configuration.amqp_url, queue=pool.queue, prefetch=pool.prefetch, in_order=pool.at_once)
    settling = Settling(
        queue=pool.queue,
        user=URL(configuration.amqp_url).user or "",
        publisher=publisher,
        intake=intake,
        kill_points=kill_points,
    )
    consumer = Consumer(
        pool,
        handler,
        settings=configuration,
        database=database,
        intake=intake,
        settling=settling,
        registration=registration,
        kill_points=kill_points,
    )
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(publisher.run()),
            group.create_task(settling.run()),
            group.create_task(registration.beat(consumer.in_flight)),
            group.create_task(consumer.run()),
            group.create_task(intake.run()),
            group.create_task(_watch(intake, configuration.watchdog_seconds)),
        ]
        await stopping.wait()
        get_logger().info("process_stopping", in_flight=len(consumer.in_flight()))
        await intake.stop_consuming()
        await _drain(consumer, settling, configuration.stop_grace_seconds)
        await end(reversed(tasks))


async def _drain(consumer: Consumer, settling: Settling, grace_seconds: float) -> None:
    """Wait until everything taken is finished, replied and forgotten; what is not in time goes back to the broker."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + grace_seconds
    while loop.time() < limit and not (consumer.idle and settling.idle and not settling.sent()):  # noqa: ASYNC110  # three parties' idleness, once in a process's life
        await asyncio.sleep(0.05)


async def _watch(intake: Intake, limit_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1)
        silent = loop.time() - intake.last_alive
        if not intake.alive and silent > limit_seconds:
            raise NothingToConsume(f"no consumer on {intake.queue} for {silent:.0f} s")


async def _register(registration: Registration, stopping: asyncio.Event) -> None:
    log = get_logger()
    told = False
    while not stopping.is_set():
        try:
            await registration.register()
        except (asyncpg.PostgresError, *AWAY) as error:
            if not told:
                log.warning("postgres_unreachable", error=repr(error), doing="registration")
                told = True
            await asyncio.sleep(0.5)
        else:
            log.info("process_started", worker=registration.name)
            return


async def _close(database: Any, registration: Registration) -> None:
    try:
        await registration.stop()
        async with asyncio.timeout(5):
            await database.close()
    except (asyncpg.PostgresError, *AWAY):
        database.terminate()  # away: the lease ends by itself
