"""Ends commands that cannot be claimed: their own row is refused, so they cannot end as others do.

What a row may be refused for is left out first (`bare`). When that does not help, nothing can be written under the
command's id: a dead letter keeps its bytes, and the outbox carries its failed result to whoever asked.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from contracts.errors import CommandError, ErrorCode, Permanent
from contracts.ledger import end_command
from contracts.restarting import tell_fault
from contracts.results import State, encode_result
from contracts.tables import OutboxRow, write_outbox
from workers.stages import Admitted
from workers.store.dead_letters import DeadLetter, dead_letter_of, insert_dead_letters

_RECORDED = """
select exists (
  select from command_keys k join commands c on c.publisher = k.publisher and c.id = k.id and c.day = k.day
  where k.publisher = $1 and k.id = $2
)
"""
_NEXT = "select nextval('token_seq')"


def bare(one: Admitted) -> Admitted:
    """The same command without what its row could be refused for and does not need to fail.

    Args:
        one: With its fault.
    """
    return replace(one, text="", envelope=replace(one.envelope, correlation_id=None, traceparent=None))


async def record(connection: Any, one: Admitted, *, queue: str, worker: str) -> DeadLetter:
    """Keep a command that cannot be claimed as a dead letter, and have its failed result sent. Call it in a transaction.

    Args:
        connection: In a transaction of the caller's.
        one: With its fault.
        queue: The work queue.
        worker: Name of this worker.
    """
    fault = one.fault or Permanent(ErrorCode.UNREPRESENTABLE, "it cannot be recorded")
    letter = dead_letter_of(one, reason=fault.code.value, message=fault.message, queue=queue)
    await insert_dead_letters(connection, [letter])
    if not await _ended(connection, one, fault) and not await connection.fetchval(_RECORDED, *one.key):
        envelope = one.envelope
        result = encode_result(
            envelope,
            State.FAILED,
            error=fault,
            attempts=0,
            started_at=None,
            finished_at=datetime.now(UTC),
            worker=worker,
        )
        unseen = replace(envelope, traceparent=None)
        token = await connection.fetchval(_NEXT)
        await write_outbox(connection, [OutboxRow(token, 0, unseen, State.FAILED.value, result)])
    return letter


async def _ended(connection: Any, one: Admitted, fault: CommandError) -> bool:
    """End the row that the gateway may have recorded; it may be refused as the claim was."""
    try:
        return await end_command(connection, *one.key, State.FAILED, fault) is not None
    except Exception as error:  # noqa: BLE001  # its savepoint is rolled back; the dead letter counts
        tell_fault("claim", error, command_id=str(one.envelope.id))
        return False
