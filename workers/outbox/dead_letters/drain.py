"""Drains `ish.dead`: what the broker dead-lettered becomes a row of `dead_letters`, and its command ends as failed.

Source: https://www.rabbitmq.com/docs/dlx ("x-death").
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from contracts.amqp.messages import Refusal
from contracts.errors import ErrorCode
from contracts.ledger import Ended
from contracts.topology import DEAD, command_key
from workers.outbox.dead_letters.conversion import storable
from workers.outbox.dead_letters.recorder import Burial, Verdict

PREFETCH = 50
_REASONS = {"delivery_limit": "it was delivered too often without being finished"}


def handler(
    burial: Burial, answer: Callable[[Ended | Refusal], Awaitable[None]]
) -> Callable[[AbstractIncomingMessage], Awaitable[bool]]:
    """What to do with each message of `ish.dead`.

    Args:
        burial: Records it.
        answer: Sends the result of a command that was ended, or the answer to what is no command.
    """

    async def handle(message: AbstractIncomingMessage) -> bool:
        ended = await burial.bury(message, verdict_of(message.headers or {}, message.routing_key or ""))
        if ended is not None:
            await answer(ended)
        return True

    return handle


def verdict_of(headers: Any, routing_key: str) -> Verdict:
    """Why and where the broker gave up.

    Args:
        headers: As received.
        routing_key: The dead letter's own key: the name of the queue it came from.
    """
    queue, reason = routing_key, ""
    deaths = headers.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        queue = storable(deaths[0].get("queue")) or routing_key
        reason = storable(deaths[0].get("reason")) or ""
    why = _REASONS.get(reason, f"the broker's reason is {reason or 'unknown'}")
    return Verdict(
        code=ErrorCode.DELIVERY_LIMIT if reason == "delivery_limit" else ErrorCode.POISON,
        sentence=f"the broker gave up on its message in {queue}: {why}",
        queue=queue or DEAD,
        routing_key=command_key(queue),
    )
