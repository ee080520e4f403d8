"""Where the lines of a command stand whose id was another command's long ago.

An id stands for its command for as long as that is kept. Its lines in a conversation may be kept for longer: the lines of
a new command under the same id stand behind them, and both are read.
"""

from typing import Any

import asyncpg

from workers.stages import Key

_CONSTRAINT = "messages_pkey"
_FIRST_FREE = "select coalesce(max(position) + 1, 0) from messages where publisher = $1 and command_id = $2"


def collides(error: Exception) -> bool:
    """Whether a batch could not be written since a line stands where one of its own would.

    Args:
        error: What the transaction raised.
    """
    return isinstance(error, asyncpg.UniqueViolationError) and error.constraint_name == _CONSTRAINT


async def first_free(connection: Any, key: Key) -> int:
    """The first position that no line has.

    Args:
        connection: Any connection.
        key: The command.
    """
    return int(await connection.fetchval(_FIRST_FREE, *key))
