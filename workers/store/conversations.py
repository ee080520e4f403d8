"""Reads what a conversation held when a command was accepted, for the handler that answers it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from workers.ai.dialogue import History, Line
from workers.store.transactions import until_answered

MAX_LINES = 500
"""The newest lines that are read; a model's context ends the history earlier in practice."""

BEFORE = """
select sender, text, command_id from messages
where owner = $1 and conversation_id = $2 and (accepted_at, command_id) < ($3, $4)
order by accepted_at desc, command_id desc, position desc
limit $5
"""


def history_from(database: Any) -> History:
    """The history of conversations as PostgreSQL has it; waits while that is away.

    Args:
        database: asyncpg pool.
    """

    async def before(owner: str, conversation_id: str, accepted_at: datetime, command_id: UUID) -> list[Line]:
        async def attempt() -> list[Any]:
            rows: list[Any] = await database.fetch(BEFORE, owner, conversation_id, accepted_at, command_id, MAX_LINES)
            return rows

        rows = await until_answered(attempt)
        return [Line(row["sender"], row["text"], row["command_id"]) for row in rows]

    return before
