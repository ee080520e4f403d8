"""The one writer of rows: columns of commands, their keys, outbox, messages and deliveries, and what inserts them.

A statement that inserts takes one array for each column, however many rows there are. Column lists, types and parameter
numbers are made from the columns named here, so a new column of a command is added to `COMMAND` and nowhere else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from contracts.commands import KINDS
from contracts.envelope import Envelope

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column of a table."""

    name: str
    type: str
    """Its SQL type."""
    value: Callable[[Row], Any]
    """Its value for one row."""


class Columns(Generic[Row]):
    """Columns whose values come from rows of one type.

    Args:
        columns: In the order in which their arrays are passed.
    """

    def __init__(self, *columns: Column[Row]) -> None:
        self._columns = columns

    def __iter__(self) -> Iterator[Column[Row]]:
        return iter(self._columns)

    @property
    def names(self) -> list[str]:
        """Their names, in order."""
        return [column.name for column in self._columns]

    def arrays(self, rows: Iterable[Row]) -> list[list[Any]]:
        """The parameters that `Parameters.unnest` numbers: one array for each column.

        Args:
            rows: What is inserted, or asked for.
        """
        rows = list(rows)
        return [[column.value(row) for row in rows] for column in self._columns]


class Parameters:
    """Numbers the parameters of one statement, in the order in which they are passed."""

    def __init__(self) -> None:
        self._given = 0

    def one(self, type_: str) -> str:
        """The next parameter, such as `$16::uuid`.

        Args:
            type_: Its SQL type.
        """
        self._given += 1
        return f"${self._given}::{type_}"

    def unnest(self, *groups: Columns[Any], alias: str = "t", place: str | None = None) -> str:
        """The next parameters as rows: `unnest($1::text[], ...) as t(publisher, ...)`.

        Args:
            groups: Columns, whose `arrays` are passed in the same order.
            alias: What the rows are called.
            place: Name of a further column with each row's place, from 1.
        """
        columns = [column for group in groups for column in group]
        arrays = ", ".join(self.one(f"{column.type}[]") for column in columns)
        names = ", ".join([*(column.name for column in columns), *([place] if place else [])])
        return f"unnest({arrays}){' with ordinality' if place else ''} as {alias}({names})"


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A command as it came: what its row holds before anything has become of it."""

    envelope: Envelope
    fingerprint: bytes
    """Of kind and body; see `contracts.commands.fingerprint`."""
    routing_key: str
    """Its key on `ish.commands`."""
    payload: str
    """Its body, without secrets."""
    repeatable: bool
    """Whether it may be run again after a crash in the middle of it."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message that is published once its command is committed: a result, or a follow-up command."""

    token: int
    part: int
    """0 is the result; follow-ups count from 1."""
    envelope: Envelope
    """Of the command that has ended, or of the follow-up."""
    status: str | None
    """Of the result; None for a follow-up command."""
    body: bytes


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One message of a conversation."""

    publisher: str
    command_id: UUID
    position: int
    """Among the messages of its command, from 0."""
    owner: str
    conversation_id: str
    sender: str
    text: str
    metadata: str
    """JSON."""
    sent_at: datetime
    accepted_at: datetime
    deliver_to: tuple[str, ...] | None
    """Names of webhook targets; None for every matching one."""


COMMAND = Columns[CommandRow](
    Column("publisher", "text", lambda row: row.envelope.publisher),
    Column("id", "uuid", lambda row: row.envelope.id),
    Column("kind", "text", lambda row: row.envelope.kind.name),
    Column("owner", "text", lambda row: row.envelope.owner),
    Column("routing_key", "text", lambda row: row.routing_key),
    Column("reply_to", "text", lambda row: row.envelope.reply_to),
    Column("correlation_id", "text", lambda row: row.envelope.correlation_id),
    Column("traceparent", "text", lambda row: row.envelope.traceparent),
    Column("priority", "text", lambda row: row.envelope.priority),
    Column("payload", "text", lambda row: row.payload),
    Column("repeatable", "bool", lambda row: row.repeatable),
    Column("accepted_at", "timestamptz", lambda row: row.envelope.accepted_at),
    Column("deadline_at", "timestamptz", lambda row: row.envelope.deadline_at),
    Column("replay_of", "uuid", lambda row: row.envelope.replay_of),
)
"""What a command's row holds from the start."""

FINGERPRINT = Columns[CommandRow](Column("fingerprint", "bytea", lambda row: row.fingerprint))
"""Beside `COMMAND`: what its key needs."""

KEY = Columns[CommandRow](
    Column("publisher", "text", lambda row: row.envelope.publisher),
    Column("id", "uuid", lambda row: row.envelope.id),
    Column("fingerprint", "bytea", lambda row: row.fingerprint),
)
"""A command's key."""

OUTBOX = Columns[OutboxRow](
    Column("token", "bigint", lambda row: row.token),
    Column("part", "smallint", lambda row: row.part),
    Column("publisher", "text", lambda row: row.envelope.publisher),
    Column("id", "uuid", lambda row: row.envelope.id),
    Column("kind", "text", lambda row: row.envelope.kind.name),
    Column("status", "text", lambda row: row.status),
    Column("owner", "text", lambda row: row.envelope.owner),
    Column("reply_to", "text", lambda row: row.envelope.reply_to),
    Column("correlation_id", "text", lambda row: row.envelope.correlation_id),
    Column("traceparent", "text", lambda row: row.envelope.traceparent),
    Column("priority", "text", lambda row: row.envelope.priority),
    Column("body", "text", lambda row: row.body.decode()),
    Column("accepted_at", "timestamptz", lambda row: row.envelope.accepted_at),
    Column("deadline_at", "timestamptz", lambda row: row.envelope.deadline_at),
)
"""Everything that the message needs which a row of the outbox stands for."""

MESSAGE = Columns[MessageRow](
    Column("publisher", "text", lambda row: row.publisher),
    Column("command_id", "uuid", lambda row: row.command_id),
    Column("position", "smallint", lambda row: row.position),
    Column("owner", "text", lambda row: row.owner),
    Column("conversation_id", "text", lambda row: row.conversation_id),
    Column("sender", "text", lambda row: row.sender),
    Column("text", "text", lambda row: row.text),
    Column("metadata", "jsonb", lambda row: row.metadata),
    Column("sent_at", "timestamptz", lambda row: row.sent_at),
    Column("accepted_at", "timestamptz", lambda row: row.accepted_at),
)
"""A message's row."""

DELIVER_TO = Columns[MessageRow](
    Column("deliver_to", "text", lambda row: ",".join(row.deliver_to) if row.deliver_to is not None else None)
)
"""Beside `MESSAGE`: the names of its targets, separated by commas; null is every matching target."""

NEW_KEYS = f"""
fresh as (
  insert into command_keys ({", ".join(KEY.names)}) select {", ".join(KEY.names)} from w
  on conflict do nothing returning publisher, id, day
)"""  # noqa: S608  # only constants of this module
"""Inserts the keys of the rows of `w`, in the order of `w`; `fresh` has those that were not there."""

RENEW_KEYS = "select renew_keys($1::text[], $2::uuid[], $3::bytea[])"
"""Keys, as `KEY` gives them, whose command is not kept any more stand for the commands that came under their ids now."""


def insert_commands(others: Mapping[str, str]) -> str:
    """The beginning of a statement that inserts commands: `insert into commands (...) select ...`.

    The rows that its caller selects from have the columns of `COMMAND`.

    Args:
        others: SQL expressions of the row's other columns.
    """
    names = ", ".join([*COMMAND.names, *others])
    values = ", ".join([*COMMAND.names, *others.values()])
    return f"insert into commands ({names})\nselect {values}"  # names of columns


def insert_outbox(source: str) -> str:
    """A statement that inserts into the outbox.

    Args:
        source: Rows with the columns of `OUTBOX`.
    """
    names = ", ".join(OUTBOX.names)
    return f"insert into outbox ({names}) select {names} from {source}"  # noqa: S608  # names of columns


def insert_messages(source: str) -> str:
    """Parts of a `with` that insert messages, their conversations and the deliveries that follow from them.

    Args:
        source: The name of rows with the columns of `MESSAGE` and `DELIVER_TO`, and `place`, the order of their
            deliveries.
    """
    names = ", ".join(MESSAGE.names)
    return f"""
conversation as (
  insert into conversations (owner, id) select distinct owner, conversation_id from {source} order by 1, 2
  on conflict do nothing
),
message as (
  insert into messages ({names}) select {names} from {source}
),
delivery as (
  insert into deliveries (target_id, owner, conversation_id, publisher, command_id, position, accepted_at)
  select t.id, m.owner, m.conversation_id, m.publisher, m.command_id, m.position, m.accepted_at
  from {source} m join targets t on t.owner = m.owner and t.disabled_at is null
    and (t.conversation_id is null or t.conversation_id = m.conversation_id)
    and (m.deliver_to is null or t.name = any (string_to_array(m.deliver_to, ',')))
  order by m.accepted_at, m.place, t.id
  on conflict do nothing
)"""  # noqa: S608  # names of columns


_WRITE_OUTBOX = insert_outbox(Parameters().unnest(OUTBOX))


async def write_outbox(connection: Any, rows: Sequence[OutboxRow]) -> None:
    """Insert rows into the outbox.

    Args:
        connection: In the transaction that ends their commands.
        rows: With different keys.
    """
    if rows:
        await connection.execute(_WRITE_OUTBOX, *OUTBOX.arrays(rows))


ENVELOPE_COLUMNS = """publisher, id, kind, owner, accepted_at, deadline_at, correlation_id, reply_to, traceparent,
 priority, attempt, replay_of"""
"""What `envelope_of` needs of a row of `commands`."""


def envelope_of(row: Any) -> Envelope:
    """The envelope of a stored command.

    Args:
        row: A record with `ENVELOPE_COLUMNS`.
    """
    return Envelope(
        publisher=row["publisher"],
        id=row["id"],
        kind=KINDS[row["kind"]],
        owner=row["owner"],
        accepted_at=row["accepted_at"],
        deadline_at=row["deadline_at"],
        correlation_id=row["correlation_id"],
        reply_to=row["reply_to"],
        traceparent=row["traceparent"],
        priority=row["priority"],
        attempt=max(row["attempt"], 1),
        replay_of=row["replay_of"],
    )


def outbox_row(row: Any) -> OutboxRow:
    """A stored row of the outbox.

    Args:
        row: A record with the columns of `OUTBOX`.

    Raises:
        KeyError: Its kind is not one that this version knows.
    """
    envelope = Envelope(
        publisher=row["publisher"],
        id=row["id"],
        kind=KINDS[row["kind"]],
        owner=row["owner"],
        accepted_at=row["accepted_at"],
        deadline_at=row["deadline_at"],
        correlation_id=row["correlation_id"],
        reply_to=row["reply_to"],
        traceparent=row["traceparent"],
        priority=row["priority"],
    )
    return OutboxRow(row["token"], row["part"], envelope, row["status"], row["body"].encode())
