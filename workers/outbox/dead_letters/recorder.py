"""Ends a command whose message the broker gave up on or could not route, so that its publisher gets a result.

One transaction: the dead letter, and unless the command is running or has ended already its terminal row with the outbox
row that answers. A command nobody has recorded yet is recorded first. What a worker that lives holds is left to it.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from contracts.amqp.messages import Refusal
from contracts.commands import KINDS
from contracts.database import acquired, is_data_error, is_of_schema, is_passing
from contracts.errors import CommandError, ErrorCode, Indeterminate, Permanent
from contracts.ledger import Ended, end_command
from contracts.logs import get_logger
from contracts.metrics import COMMANDS, DEAD_LETTERS
from contracts.restarting import tell_fault
from contracts.results import State
from contracts.tables import COMMAND, FINGERPRINT, KEY, NEW_KEYS, RENEW_KEYS, CommandRow, Parameters, insert_commands
from workers.consume.admission import admit
from workers.outbox.dead_letters.conversion import delivery_of, letter_of
from workers.stages import Admitted
from workers.store.dead_letters import DeadLetter, insert_dead_letters, stored_body
from workers.store.publishers import Kinds

# A key that the gateway reserved and has no row for is recorded too; another body under a used id is not.
_RECORD = f"""
with w as (
  select * from {Parameters().unnest(COMMAND, FINGERPRINT)} order by publisher, id
),
{NEW_KEYS},
known as (
  select publisher, id, day from fresh
  union all
  select k.publisher, k.id, k.day from w join command_keys k using (publisher, id)
  where k.fingerprint = w.fingerprint and is_kept(k.day)
)
{insert_commands({"day": "day", "state": "'queued'"})}
from w join known using (publisher, id)
on conflict (publisher, id, day) do nothing
"""  # noqa: S608  # only constants
_LOOK = """
select c.state, c.repeatable, c.state = 'running' and exists (
    select from workers x where x.incarnation = c.holder and x.heartbeat_at > clock_timestamp() - $4::interval
  ) as held
from command_keys k join commands c using (publisher, id, day)
where k.publisher = $1 and k.id = $2 and k.fingerprint = $3
for update of c
"""
# a message that comes again, since its ack was lost after the commit, is one dead letter
_KNOWN = """
select 1 from dead_letters
where publisher is not distinct from $1 and message_id is not distinct from $2 and reason = $3 and queue = $4
  and body = $5 and at > clock_timestamp() - interval '1 day'
limit 1
"""

_TRIES = 3
"""With errors that nobody foresaw."""
_AGAIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a message is not going to be run."""

    code: ErrorCode
    sentence: str
    queue: str
    """Where it could not go or stay."""
    routing_key: str
    """Its key on `ish.commands`."""


async def record(connection: Any, row: CommandRow) -> None:
    """Record a command as `queued`, unless there is a row already or its id stands for another body.

    Args:
        connection: In the transaction that ends it.
        row: The command.
    """
    await connection.execute(RENEW_KEYS, *KEY.arrays([row]))
    await connection.execute(_RECORD, *COMMAND.arrays([row]), *FINGERPRINT.arrays([row]))


class Burial:
    """Records what will not be run.

    Args:
        database: asyncpg pool.
        default_deadline_seconds: For a command that names none.
        lease_seconds: Age of a heartbeat at which its worker is gone.
        publishers: Which kinds outside publishers may send; None leaves that to the broker.
    """

    def __init__(
        self,
        database: Any,
        *,
        default_deadline_seconds: float,
        lease_seconds: float,
        publishers: Kinds | None = None,
    ) -> None:
        self._publishers = publishers
        self._database = database
        self._default_deadline = timedelta(seconds=default_deadline_seconds)
        self._lease = timedelta(seconds=lease_seconds)
        self._log = get_logger(job="burial")

    async def bury(self, message: AbstractIncomingMessage, verdict: Verdict) -> Ended | Refusal | None:
        """Record one message.

        Args:
            message: As received.
            verdict: Why it is not run.

        Returns:
            The command that was ended by it, whose result is in the outbox; the answer to what is no command; None
            when there is nobody to answer.
        """
        admitted = self.admit(message, verdict)
        if isinstance(admitted, DeadLetter):
            # its own fault says more than what became of it
            letter = letter_of(
                message,
                reason=admitted.reason,
                sentence=admitted.message,
                queue=verdict.queue,
                routing_key=verdict.routing_key,
                publisher=admitted.publisher,
            )
            await self._write(message, letter, None)
            return admitted.refusal
        letter = letter_of(
            message,
            reason=verdict.code.value,
            sentence=verdict.sentence,
            queue=verdict.queue,
            routing_key=verdict.routing_key,
            publisher=admitted.envelope.publisher,
        )
        for left in reversed(range(_TRIES)):
            try:
                return await self._write(message, letter, admitted, Permanent(verdict.code, verdict.sentence))
            except Exception as error:
                if is_passing(error) or is_of_schema(error):
                    raise
                tell_fault("dead letter", error, message_id=letter.message_id)
                if is_data_error(error) or not left:
                    break
            await asyncio.sleep(_AGAIN_SECONDS)
        # its command cannot be recorded (something in its envelope cannot be stored): there is nothing to answer with
        return await self._write(message, letter, None)

    def admit(self, message: AbstractIncomingMessage, verdict: Verdict) -> Admitted | DeadLetter:
        """The checks that a worker makes, on a message that no worker gets.

        Args:
            message: As received.
            verdict: For its routing key.
        """
        return admit(
            delivery_of(message, routing_key=verdict.routing_key),
            queue=verdict.queue,
            kinds=KINDS,
            publishers=self._publishers,
            default_deadline=self._default_deadline,
            now=datetime.now(UTC),
        )

    async def _write(
        self,
        message: AbstractIncomingMessage,
        letter: DeadLetter,
        admitted: Admitted | None,
        error: CommandError | None = None,
    ) -> Ended | None:
        ended: Ended | None = None
        async with acquired(self._database) as connection, connection.transaction():
            if not (message.redelivered and await self._is_known(connection, letter)):
                await insert_dead_letters(connection, [letter])
            if admitted is not None and error is not None:
                await record(connection, admitted.row)
                ended = await self._end(connection, admitted, error)
        DEAD_LETTERS.labels(letter.reason).inc()
        self._log.warning(
            "command_refused", reason=letter.reason, publisher=letter.publisher, message_id=letter.message_id
        )
        if ended is not None:
            COMMANDS.labels(ended.envelope.kind.name, ended.status.value).inc()
        return ended

    async def _end(self, connection: Any, admitted: Admitted, error: CommandError) -> Ended | None:
        publisher, id_ = admitted.key
        row = await connection.fetchrow(_LOOK, publisher, id_, admitted.fingerprint, self._lease)
        if row is None or row["held"]:
            return None
        status = State.FAILED
        if row["state"] == State.RUNNING.value and not row["repeatable"]:
            status = State.INDETERMINATE
            error = Indeterminate(
                ErrorCode.INDETERMINATE,
                f"its worker died in the middle of an effect that must not be repeated; {error.message}",
            )
        return await end_command(
            connection,
            publisher,
            id_,
            status,
            error,
            from_states=(State.QUEUED, State.RETRYING, State.RUNNING),
        )

    async def _is_known(self, connection: Any, letter: DeadLetter) -> bool:
        found = await connection.fetchval(
            _KNOWN, letter.publisher, letter.message_id, letter.reason, letter.queue, stored_body(letter)
        )
        return found is not None
