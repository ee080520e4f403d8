"""Delivers recorded messages to webhook targets: per conversation one at a time, oldest first, tried for a day.

    pending ──due, and first of its conversation──► leased ──2xx──► delivered ──► the next one is taken at once
       ▲  │ due, and not the first                     ├─ 410, or older than a day ──► abandoned ──► the next one is due
       │  ▼                                            ▼
       └ parked until the first is due again      5 s, 30 s, 2 min, 10 min, then each hour

A target that is down occupies a few of the slots, never all of them.
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
from workers.outbox.webhooks import TIMEOUT_SECONDS, Answer, Webhooks

SLOTS = 50
SLOTS_PER_TARGET = 10
_IN_A_ROW = 100
"""Messages of one conversation before others have a turn."""
_LOOK_AT = 500
_LEASE = timedelta(seconds=3 * TIMEOUT_SECONDS)
_BACKOFF_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0)

_JOB_COLUMNS = """
leased.seq, leased.tries, leased.target_id, leased.publisher, leased.command_id, leased.position, leased.accepted_at,
  t.name, t.url, t.secret, t.disabled_at is not null as disabled,
  m.conversation_id, m.sender, m.text, m.metadata, m.sent_at
from leased join targets t on t.id = leased.target_id
left join messages m on m.publisher = leased.publisher and m.command_id = leased.command_id
  and m.position = leased.position
"""

# What is due but not the first of its conversation is parked, so that a long queue behind a target that is down is
# looked at once per try of its first and not once per round.
_TAKE = f"""
with due as materialized (
  select seq, target_id, conversation_id from deliveries
  where state = 'pending' and not_before <= clock_timestamp() and target_id <> all ($1::uuid[])
  order by not_before limit $2 for update skip locked
),
judged as materialized (
  select due.seq, due.target_id, head.seq = due.seq as first, head.not_before as head_not_before
  from due cross join lateral (
    select p.seq, p.not_before from deliveries p
    where p.state = 'pending' and p.target_id = due.target_id and p.conversation_id = due.conversation_id
    order by p.accepted_at, p.seq limit 1
  ) head
),
chosen as materialized (
  select seq from (
    select seq, row_number() over (partition by target_id order by seq) as place from judged where first
  ) ranked where place <= $3 order by place, seq limit $4
),
parked as (
  update deliveries d set not_before = greatest(j.head_not_before, clock_timestamp() + interval '1 second')
  from judged j where d.seq = j.seq and not j.first
),
leased as (
  update deliveries d set not_before = clock_timestamp() + $5::interval, tries = d.tries + 1
  from chosen where d.seq = chosen.seq returning d.*
)
select {_JOB_COLUMNS}
"""  # noqa: S608  # only constants of this module

# `tries` fences: whoever's lease ran out finds another number
_FINISH = f"""
with done as (
  update deliveries set state = $3, finished_at = clock_timestamp(), last_error = $4
  where seq = $1 and tries = $2 and state = 'pending' returning target_id, conversation_id
),
next as materialized (
  select head.seq from done cross join lateral (
    select p.seq from deliveries p
    where p.state = 'pending' and p.target_id = done.target_id and p.conversation_id = done.conversation_id
      and p.seq <> $1
    order by p.accepted_at, p.seq limit 1
  ) head
),
leased as (
  update deliveries d set tries = d.tries + $5::bool::int,
    not_before = clock_timestamp() + case when $5 then $6::interval else interval '0' end
  from next where d.seq = next.seq returning d.*
)
select {_JOB_COLUMNS}
"""  # noqa: S608  # only constants of this module

_POSTPONE = """
update deliveries set not_before = clock_timestamp() + $3::interval, last_error = $4
where seq = $1 and tries = $2 and state = 'pending'
"""


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
        jobs = await self._database.fetch(_TAKE, full, _LOOK_AT, SLOTS_PER_TARGET, free, _LEASE)
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
                rows = await self._settle(job, answer, go_on=place + 1 < _IN_A_ROW and not self._stopping)
                if not rows:
                    return
                job = rows[0]
        except (asyncpg.PostgresError, *AWAY) as error:
            # the lease ends by itself, and the receiver knows the webhook's id
            self._log.warning("postgres_unreachable", error=repr(error))
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
            rows = await self._finish(job, "delivered", None, go_on=go_on)
            return rows if go_on else None
        if answer.final or datetime.now(UTC) - job["accepted_at"] > self._give_up:
            DELIVERIES.labels("abandoned").inc()
            self._log.error("delivery_given_up", error=answer.problem, **fields)
            # the next one is due now, and gets a turn of its own: its target may be down
            await self._finish(job, "abandoned", answer.problem, go_on=False)
            return None
        DELIVERIES.labels("failed").inc()
        delay_seconds = max(backoff_seconds(job["tries"]), answer.retry_after_seconds or 0.0)
        self._log.warning("delivery_failed", error=answer.problem, retry_in_seconds=round(delay_seconds, 1), **fields)
        await self._database.execute(
            _POSTPONE, job["seq"], job["tries"], timedelta(seconds=delay_seconds), answer.problem
        )
        return None

    async def _finish(self, job: Any, state: str, problem: str | None, *, go_on: bool) -> Any:
        return await self._database.fetch(_FINISH, job["seq"], job["tries"], state, problem, go_on, _LEASE)


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
