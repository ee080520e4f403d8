"""Drains `ish.unrouted`: what no queue was bound for goes to its queue again, or ends as failed `unroutable`.

A command for a phone that has no queue (it is new, or was away for long) goes to `ish.android`, where a worker decides.

With an alternate exchange the broker *acks* an unroutable publish, so this is where such a command would be lost.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from contracts.amqp.messages import Refusal, command_message
from contracts.amqp.publisher import Outgoing, PublishFailed
from contracts.errors import ErrorCode
from contracts.ledger import Ended
from contracts.logs import get_logger
from contracts.topology import ANDROID, ROUTING_KEYS, UNROUTED, device_key
from workers.outbox.dead_letters.recorder import Burial, Verdict
from workers.store.dead_letters import DeadLetter

PREFETCH = 20
_KEYS = frozenset(ROUTING_KEYS.values())
_OF_A_PHONE = device_key("")


class Unrouted:
    """What to do with each message of `ish.unrouted`.

    Args:
        burial: Records what cannot be run.
        answer: Sends the result of a command that was ended, or the answer to what is no command.
        publish: Publishes confirmed.
        restore: Makes sure, now, that every queue and binding exists.
        user: This process's own RabbitMQ user.
    """

    def __init__(
        self,
        burial: Burial,
        *,
        answer: Callable[[Ended | Refusal], Awaitable[None]],
        publish: Callable[[Outgoing], Awaitable[Any]],
        restore: Callable[[], Awaitable[None]],
        user: str,
    ) -> None:
        self._burial = burial
        self._answer = answer
        self._publish = publish
        self._restore = restore
        self._user = user
        self._log = get_logger(job="unrouted")

    async def handle(self, message: AbstractIncomingMessage) -> bool:
        """Re-route or end one message.

        Args:
            message: As received.

        Returns:
            False when its queue does not take it now.
        """
        key = message.routing_key or ""
        target = ROUTING_KEYS[ANDROID] if key.startswith(_OF_A_PHONE) else key
        verdict = Verdict(
            ErrorCode.UNROUTABLE,
            f"no queue is bound for the routing key {key[:100]!r}: use one of {', '.join(sorted(_KEYS))}",
            queue=UNROUTED,
            routing_key=key,
        )
        admitted = self._burial.admit(message, verdict)
        if target not in _KEYS or isinstance(admitted, DeadLetter):
            ended = await self._burial.bury(message, verdict)
            if ended is not None:
                await self._answer(ended)
            return True
        # published without its queue it would be acked and come straight back here
        await self._restore()
        try:
            await self._publish(command_message(admitted.envelope, message.body, user=self._user, key=target))
        except PublishFailed as error:
            self._log.warning("message_postponed", message_id=message.message_id, error=str(error))
            return False
        self._log.info("command_rerouted", command_id=str(admitted.envelope.id), routing_key=target)
        return True
