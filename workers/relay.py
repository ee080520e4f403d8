"""The relay handler: a chat message becomes a line of its conversation, and on request a question to a model."""

from typing import Any

from contracts.commands import KIND_AI, Ask, Relay
from workers.handler import Command, FollowUp, Message, Outcome


async def relay(command: Command[Relay]) -> Outcome:
    """Record one message. Does no I/O: its effect is the transaction that the consume path writes.

    Args:
        command: The claimed command.

    Returns:
        Output `{"conversation_id": str, "recorded": true}`, to which the consume path adds `follow_ups`, the ids of the
        commands that follow; the line to record; and the question to ask, if one was wanted.
    """
    payload = command.payload
    # a message that names no conversation opens one under its own id, so that the next can join it
    conversation_id = payload.conversation_id or str(command.id)
    line = Message(
        conversation_id=conversation_id,
        sender=payload.sender,
        text=payload.message,
        sent_at=payload.timestamp,
        metadata=payload.metadata,
        deliver_to=tuple(payload.deliver_to) if payload.deliver_to is not None else None,
    )
    return Outcome(
        output={"conversation_id": conversation_id, "recorded": True},
        messages=(line,),
        follow_ups=_question(command, payload, conversation_id),
    )


def _question(command: Command[Relay], payload: Relay, conversation_id: str) -> tuple[FollowUp, ...]:
    if payload.ask is False:
        return ()
    wish = payload.ask if isinstance(payload.ask, Ask) else Ask()
    question: dict[str, Any] = {
        **wish.model_dump(exclude_none=True),
        "prompt": payload.message,
        "conversation_id": conversation_id,
        "in_reply_to": str(command.id),
    }
    return (FollowUp(KIND_AI, question),)
