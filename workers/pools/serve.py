"""Puts a worker together: which pool consumes which queue with which handler, in what order things open and close."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from contracts import topology
from contracts.amqp.publisher import Publisher
from contracts.commands import KIND_AI, KIND_ANDROID, KIND_RELAY
from contracts.database import open_pool
from contracts.logs import get_logger
from contracts.metrics import serve_metrics
from contracts.restarting import restarting
from contracts.service_errors import postgres_in_words
from contracts.settings import Settings
from workers.amqp.subscription import Intake
from workers.consume.consumer import Pool
from workers.consume.failpoints import KillPoints
from workers.consume.lane import Lane, Shared
from workers.handler import Handler
from workers.relay import relay
from workers.store.heartbeat import Registration
from workers.store.publishers import PublisherKinds
from workers.task_cancellation import end

_CALLS_PER_SPARE = 5
"""One more command is held for so many calls, so that a place at a provider is not empty while an answer is committed
and the next command fetched and claimed. More would keep from other workers what this one cannot begin."""


class NothingToConsume(Exception):
    """There was no live consumer for too long: better start over than look alive."""


class Work(Protocol):
    """Something that consumes."""

    @property
    def intake(self) -> Intake:
        """Where its commands come from."""

    async def run(self) -> None:
        """Serve until cancelled."""

    async def drain(self, grace_seconds: float) -> None:
        """Take nothing new, and wait until everything taken is settled.

        Args:
            grace_seconds: The longest wait.
        """


def _lanes(pools: Sequence[Pool], handler: Handler, shared: Shared) -> Sequence[Work]:
    return [Lane(pool, handler, shared) for pool in pools]


def _phones(pools: Sequence[Pool], run_on: Any, shared: Shared) -> Sequence[Work]:
    from workers.pools.android import PhonePool  # noqa: PLC0415  # each pool loads its own world only

    return [PhonePool(pool, run_on, shared) for pool in pools]


@dataclass(frozen=True, slots=True)
class Opening:
    """How a pool's worker is opened."""

    name: str
    pools: Callable[[Settings], Sequence[Pool]]
    """Its queues, each with its own prefetch."""
    handler: Callable[[Settings, Any], AbstractAsyncContextManager[Any]]
    """Opens what the handler needs; it gets the settings and the database pool."""
    work: Callable[[Sequence[Pool], Any, Shared], Sequence[Work]] = _lanes
    """Puts queues and handler together."""


@asynccontextmanager
async def _relay(_: Settings, __: Any) -> AsyncIterator[Handler]:
    yield relay


@asynccontextmanager
async def _ai(configuration: Settings, database: Any) -> AsyncIterator[Handler]:
    from workers.pools import ai  # noqa: PLC0415  # each pool loads its own world only

    async with ai.open_handler(configuration, database) as handler:
        yield handler


@asynccontextmanager
async def _android(configuration: Settings, database: Any) -> AsyncIterator[Any]:
    from workers.android import handler  # noqa: PLC0415  # as above
    from workers.store.artifacts import artifacts_from  # noqa: PLC0415  # as above

    yield handler.build(artifacts=artifacts_from(database), artifact_limit_bytes=configuration.artifact_limit_bytes)


def _relay_pools(settings: Settings) -> list[Pool]:
    return [Pool("relay", topology.RELAY, frozenset({KIND_RELAY}), settings.relay_prefetch, at_once=True)]


def _ai_pools(settings: Settings) -> list[Pool]:
    """Two queues and two prefetches: however much batch work waits, interactive work finds its own places free."""
    kinds = frozenset({KIND_AI})
    return [
        Pool(name, queue, kinds, prefetch=calls + calls // _CALLS_PER_SPARE, places=calls)
        for name, queue, calls in (
            ("ai", topology.AI, settings.ai_prefetch),
            ("ai batch", topology.AI_BATCH, settings.ai_batch_prefetch),
        )
    ]


def _android_pools(settings: Settings) -> list[Pool]:
    return [Pool("android", topology.ANDROID, frozenset({KIND_ANDROID}), settings.android_prefetch)]


POOLS = {
    opening.name: opening
    for opening in (
        Opening("relay", _relay_pools, _relay),
        Opening("ai", _ai_pools, _ai),
        Opening("android", _android_pools, _android, _phones),
    )
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
    name = opening.name
    metrics_port = serve_metrics(configuration.metrics_host, configuration.metrics_port)
    database = await open_pool(configuration.postgres_url, size=configuration.postgres_pool_size, name=f"ish {name}")
    registration = Registration(
        database,
        pool_name=name,
        metrics_port=metrics_port,
        lease_seconds=configuration.lease_seconds,
        heartbeat_seconds=configuration.heartbeat_seconds,
    )
    try:
        async with opening.handler(configuration, database) as handler:
            await _register(registration, stopping)
            if not stopping.is_set():
                publisher = Publisher(
                    configuration.amqp_url,
                    name=f"ish {name} publisher",
                    timeout_seconds=configuration.publish_timeout_seconds,
                )
                kill_points = KillPoints(configuration.kill_point, configuration.kill_mark)
                kinds = PublisherKinds(database)
                await _know(kinds, stopping)
                shared = Shared(configuration, database, registration, publisher, kill_points, kinds)
                await _serve(opening.work(opening.pools(configuration), handler, shared), shared, stopping)
    finally:
        await _close(database, registration)


async def _serve(lanes: Sequence[Work], shared: Shared, stopping: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        keep = partial(restarting, give_up_seconds=shared.settings.watchdog_seconds)
        tasks = [
            group.create_task(keep("publisher", shared.publisher.run)),
            group.create_task(
                keep("heartbeat", partial(shared.registration.beat, shared.in_flight, cancel=shared.cancel))
            ),
            group.create_task(keep("publishers", shared.kinds.run)),
            *(group.create_task(lane.run()) for lane in lanes),
            *(group.create_task(_watch(lane.intake, shared.settings.watchdog_seconds)) for lane in lanes),
        ]
        await stopping.wait()
        get_logger().info("process_stopping", in_flight=len(shared.in_flight()))
        await asyncio.gather(*(lane.drain(shared.settings.stop_grace_seconds) for lane in lanes))
        await end(reversed(tasks))


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
        except Exception as error:  # noqa: BLE001  # it is tried again, whatever it met
            if not told:
                log.warning("postgres_unreachable", error=postgres_in_words(error), doing="registration")
                told = True
            await asyncio.sleep(0.5)
        else:
            log.info("process_started", worker=registration.name)
            return


async def _know(kinds: PublisherKinds, stopping: asyncio.Event) -> None:
    """Nothing is consumed before it is known who may send what."""
    while not stopping.is_set():
        if await kinds.refresh():
            return
        await asyncio.sleep(0.5)


async def _close(database: Any, registration: Registration) -> None:
    try:
        await registration.stop()
        async with asyncio.timeout(5):
            await database.close()
    except Exception:  # noqa: BLE001  # away: the lease ends by itself
        database.terminate()
