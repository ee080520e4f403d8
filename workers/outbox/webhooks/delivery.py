"""Delivers recorded messages to webhook targets: per conversation one at a time, oldest first, tried for a day.

    pending ──due, first of its conversation, whose turn is taken──► leased ──2xx──► delivered ──► the next one, at once
       ▲  │ due, and not the first                     ├─ 410, or older than a day ──► abandoned ──► the next one is due
       │  ▼                                            ▼
       └ parked until the first is due again      5 s, 30 s, 2 min, 10 min, then each hour

Turns are in `workers.outbox.webhooks.turns`. A target that is down occupies a few of the slots, never all of them.
"""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from contracts.database import AWAY
from contracts.logs import get_logger
from contracts.metrics import DELIVERIES
from contracts.restarting import tell_fault
from contracts.service_errors import postgres_in_words
from workers.outbox.webhooks import turns
from workers.outbox.webhooks.sending import TIMEOUT_SECONDS, Answer, Webhooks

SLOTS = 50
SLOTS_PER_TARGET = 10
_IN_A_ROW = 100
"""Messages of one conversation before others have a turn."""
_LOOK_AT = 500
_LEASE = timedelta(seconds=3 * TIMEOUT_SECONDS)
_BACKOFF_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0)


class Deliveries:
    """The job.

    Args:
        database: asyncpg pool.
        webhooks: Sends them.
        give_up_seconds: Age of a message at which a failing delivery is abandoned.
    """

    def __init__(self, database: Any, webhooks: Webhooks, *, give_up_seconds: float) -> None:
        self._database = database
        self._webhooks = webhooks
        self._give_up = timedelta(seconds=give_up_seconds)
        self._busy: Counter[UUID] = Counter()
        self._slot_freed = asyncio.Event()
        self._stopping = False
        self._group: asyncio.TaskGroup | None = None
        self._log = get_logger(job="deliveries")

    @property
    def in_flight(self) -> int:
        """Conversations being served now."""
        return self._busy.total()

    async def run(self) -> None:
        """Host the conversations' tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    async def round(self) -> bool:
        """Start what is due and has a slot.

        Returns:
            Whether there may be more.
        """
        free = SLOTS - self.in_flight
        if self._stopping or self._group is None:
            return False
        if not free:
            self._slot_freed.clear()
            await self._slot_freed.wait()
            return True
        full = [target for target, count in self._busy.items() if count >= SLOTS_PER_TARGET]
        jobs = await turns.take(
            self._database, without=full, look_at=_LOOK_AT, per_target=SLOTS_PER_TARGET, most=free, lease=_LEASE
        )
        for job in jobs:
            self._busy[job["target_id"]] += 1
            self._group.create_task(self._serve(job))
        return len(jobs) == free

    async def drain(self, seconds: float) -> None:
        """Take nothing more and wait for what is on its way; the rest is tried again when its lease ends.

        Args:
            seconds: At the most.
        """
        self._stopping = True
        loop = asyncio.get_running_loop()
        limit = loop.time() + seconds
        while self.in_flight and (left := limit - loop.time()) > 0:
            self._slot_freed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._slot_freed.wait()
            except TimeoutError:
                return

    async def _serve(self, job: Any) -> None:
        """Deliver one conversation's messages in a row."""
        target = job["target_id"]
        try:
            for place in range(_IN_A_ROW):
                answer = await self._try(job)
                job = await self._settle(job, answer, go_on=place + 1 < _IN_A_ROW and not self._stopping)
                if job is None:
                    return
        except (asyncpg.PostgresError, *AWAY) as error:
            # the lease ends by itself, and the receiver knows the webhook's id
            self._log.warning("postgres_unreachable", error=postgres_in_words(error))
        except Exception as error:  # noqa: BLE001  # as above; the other conversations go on
            tell_fault("webhook", error, command_id=str(job["command_id"]))
        finally:
            self._busy[target] -= 1
            if not self._busy[target]:
                del self._busy[target]
            self._slot_freed.set()

    async def _try(self, job: Any) -> Answer:
        if job["disabled"]:
            return Answer(delivered=False, problem="the target was removed", final=True)
        if job["sender"] is None:
            return Answer(delivered=False, problem="the message was erased", final=True)
        return await self._webhooks.send(
            job["url"],
            job["secret"],
            webhook_id=webhook_id(job),
            body=orjson.dumps(event(job), option=orjson.OPT_UTC_Z),
        )

    async def _settle(self, job: Any, answer: Answer, *, go_on: bool) -> Any:
        """Record what became of a try; returns the conversation's next delivery if it is to be made at once."""
        fields = {"target": job["name"], "command_id": str(job["command_id"]), "tries": job["tries"]}
        if answer.delivered:
            DELIVERIES.labels("delivered").inc()
            return await self._finish(job, "delivered", None, go_on=go_on)
        if answer.final or datetime.now(UTC) - job["accepted_at"] > self._give_up:
            DELIVERIES.labels("abandoned").inc()
            self._log.error("delivery_given_up", error=answer.problem, **fields)
            # the next one is due now, and gets a turn of its own: its target may be down
            return await self._finish(job, "abandoned", answer.problem, go_on=False)
        DELIVERIES.labels("failed").inc()
        delay_seconds = max(backoff_seconds(job["tries"]), answer.retry_after_seconds or 0.0)
        self._log.warning("delivery_failed", error=answer.problem, retry_in_seconds=round(delay_seconds, 1), **fields)
        await turns.postpone(self._database, job, timedelta(seconds=delay_seconds), answer.problem)
        return None

    async def _finish(self, job: Any, state: str, problem: str | None, *, go_on: bool) -> Any:
        return await turns.finish(self._database, job, state, problem, go_on=go_on, lease=_LEASE)


def webhook_id(job: Any) -> str:
    """What identifies a webhook to its receiver, the same at every try.

    Args:
        job: A row of `deliveries`.
    """
    return f"{job['publisher']}:{job['command_id']}:{job['position']}:{job['target_id']}"


def event(job: Any) -> dict[str, Any]:
    """The body of a webhook, equal at every try.

    Args:
        job: A delivery with its message.
    """
    return {
        "type": "message.recorded",
        "timestamp": job["accepted_at"],
        "data": {
            "conversation_id": job["conversation_id"],
            "sender": job["sender"],
            "message": job["text"],
            "metadata": orjson.loads(job["metadata"]),
            "command_id": str(job["command_id"]),
            "position": job["position"],
            "sent_at": job["sent_at"],
            "accepted_at": job["accepted_at"],
        },
    }


def backoff_seconds(tries: int, *, jitter: float | None = None) -> float:
    """The wait after a failed try.

    Args:
        tries: So far, counting the one that failed; first is 1.
        jitter: 0 to 1, lengthens the wait by up to a fifth; None draws one.
    """
    base = _BACKOFF_SECONDS[min(tries, len(_BACKOFF_SECONDS)) - 1]
    return base * (1 + 0.2 * (random.random() if jitter is None else jitter))
