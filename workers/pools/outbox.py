"""Puts the outbox worker together: which jobs run how often, in what order things open and close."""

import asyncio
from functools import partial
from typing import Any

from yarl import URL

from contracts.amqp.messages import Refusal, refusal_message
from contracts.amqp.publisher import Publisher, Refused, Unroutable
from contracts.database import open_pool
from contracts.ledger import Ended
from contracts.logs import get_logger
from contracts.metrics import serve_metrics
from contracts.restarting import restarting
from contracts.settings import Settings
from contracts.topology import DEAD, UNROUTED
from workers.outbox.dead_letters import drain, unrouted
from workers.outbox.dead_letters.recorder import Burial
from workers.outbox.housekeeping import Housekeeping, Retention
from workers.outbox.relay import Resend
from workers.outbox.repair.device_queues import DeviceQueues, together
from workers.outbox.repair.expiry import Expire
from workers.outbox.repair.queue_guard import Guard
from workers.outbox.repair.rescuer import Republish
from workers.outbox.schedule import repeat
from workers.outbox.subscription import Subscription
from workers.outbox.uploads import PruneUploads
from workers.outbox.webhooks.addresses import Rules
from workers.outbox.webhooks.delivery import Deliveries
from workers.outbox.webhooks.sending import Webhooks
from workers.store.heartbeat import Registration
from workers.store.publishers import PublisherKinds
from workers.task_cancellation import end


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until asked to stop; any number of outbox workers may run side by side.

    Args:
        settings: Needs `amqp_url` and `postgres_url`.
        stop: Set by SIGTERM.
    """
    metrics_port = serve_metrics(settings.metrics_host, settings.metrics_port)
    database = await open_pool(settings.postgres_url, size=max(settings.postgres_pool_size, 3), name="ish outbox")
    registration = Registration(
        database,
        pool_name="outbox",
        metrics_port=metrics_port,
        lease_seconds=settings.lease_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    rules = Rules(allow_http=settings.delivery_allow_http, allow_private=settings.delivery_allow_private)
    try:
        async with Webhooks(rules) as webhooks:
            await _Worker(settings, database, webhooks, registration).serve(stop)
    finally:
        try:
            await registration.stop()
            async with asyncio.timeout(5):
                await database.close()
        except Exception:  # noqa: BLE001  # away: the lease ends by itself
            database.terminate()


class _Worker:
    """The jobs of one process, and what they share."""

    def __init__(self, settings: Settings, database: Any, webhooks: Webhooks, registration: Registration) -> None:
        user = URL(settings.amqp_url).user or ""
        lease_seconds = settings.lease_seconds
        self._user = user
        self._settings = settings
        self._registration = registration
        self._publisher = Publisher(
            settings.amqp_url, name="ish outbox publisher", timeout_seconds=settings.publish_timeout_seconds
        )
        self._resend = Resend(
            database,
            self._publisher,
            user=user,
            after_seconds=settings.outbox_after_seconds,
            give_up_seconds=settings.outbox_give_up_seconds,
        )
        self._guard = Guard(
            settings.amqp_url, database, queue_max_length=settings.queue_max_length, on_look=self._looked_at
        )
        self._device_queues = DeviceQueues(settings.amqp_url, database, queue_max_length=settings.queue_max_length)
        self._kinds = PublisherKinds(database)
        burial = Burial(
            database,
            default_deadline_seconds=settings.command_deadline_seconds,
            lease_seconds=lease_seconds,
            publishers=self._kinds,
        )
        stray = unrouted.Unrouted(
            burial,
            answer=self._answer,
            publish=self._publisher.publish,
            restore=self._guard.restore,
            user=user,
        )
        self._subscriptions = [
            Subscription(settings.amqp_url, DEAD, prefetch=drain.PREFETCH, handle=drain.handler(burial, self._answer)),
            Subscription(settings.amqp_url, UNROUTED, prefetch=unrouted.PREFETCH, handle=stray.handle),
        ]
        self._deliveries = Deliveries(database, webhooks, give_up_seconds=settings.delivery_give_up_seconds)
        self._expire = Expire(database, answer=self._resend.send_now, lease_seconds=lease_seconds)
        ready = together(lambda: self._guard.ready, lambda: self._device_queues.ready)
        self._republish = Republish(database, self._publisher, user=user, lease_seconds=lease_seconds, ready=ready)
        self._housekeeping = Housekeeping(database, Retention.from_settings(settings))
        self._uploads = PruneUploads(database, expiry_seconds=settings.upload_expiry_seconds)

    async def serve(self, stop: asyncio.Event) -> None:
        """Run every job until asked to stop; webhooks on their way are waited for."""
        log = get_logger()
        await self._kinds.refresh()
        async with asyncio.TaskGroup() as group:
            keep = partial(restarting, give_up_seconds=self._settings.watchdog_seconds)
            hosts = [
                group.create_task(keep("publisher", self._publisher.run)),
                group.create_task(keep("deliveries", self._deliveries.run)),
            ]
            jobs = [
                group.create_task(self._register()),
                group.create_task(keep("publishers", self._kinds.run)),
                group.create_task(repeat("resend", self._resend.round, every_seconds=1)),
                group.create_task(repeat("deliveries", self._deliveries.round, every_seconds=0.5)),
                group.create_task(repeat("expire", self._expire.round, every_seconds=1)),
                group.create_task(repeat("guard", self._guard.round, every_seconds=2)),
                group.create_task(repeat("device_queues", self._device_queues.round, every_seconds=1)),
                group.create_task(repeat("lost_queues", self._republish.lost_queues, every_seconds=2)),
                group.create_task(repeat("overdue", self._republish.overdue, every_seconds=5)),
                group.create_task(repeat("orphaned", self._republish.orphaned, every_seconds=5)),
                group.create_task(repeat("forgotten", self._republish.forgotten, every_seconds=30)),
                group.create_task(repeat("housekeeping", self._housekeeping.round, every_seconds=3600)),
                group.create_task(repeat("uploads", self._uploads.round, every_seconds=30)),
                *(group.create_task(repeat(one.queue, one.round, every_seconds=1)) for one in self._subscriptions),
            ]
            log.info("process_started", worker=self._registration.name)
            await stop.wait()
            log.info("process_stopping", in_flight=self._deliveries.in_flight)
            await self._deliveries.drain(self._settings.stop_grace_seconds)
            await end(reversed(jobs))
            await end(reversed(hosts))
        await self._guard.close()
        await self._device_queues.close()

    async def _register(self) -> None:
        """Write this process's row as soon as PostgreSQL is there, then keep it alive."""
        while True:
            try:
                await self._registration.register()
                break
            except Exception:  # noqa: BLE001  # every other job has said so
                await asyncio.sleep(1)
        await restarting("heartbeat", partial(self._registration.beat, lambda: ()))

    async def _answer(self, ended: Ended | Refusal) -> None:
        if isinstance(ended, Ended):
            await self._resend.send_now([ended.token])
            return
        try:
            await self._publisher.publish(refusal_message(ended, user=self._user))
        except (Unroutable, Refused, ValueError) as error:
            # its publisher's queue is full or gone, and there is no row from which it could be sent later
            get_logger().warning("refusal_dropped", message_id=ended.message_id, error=str(error))

    def _looked_at(self, queue: str, ready: int, consumers: int) -> None:
        for subscription in self._subscriptions:
            if subscription.queue == queue:
                subscription.looked_at(ready=ready, consumers=consumers)
