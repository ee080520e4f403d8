"""Token streams: where a worker leaves an answer's text while it is made, and how a gateway reads it.

One Redis stream for each command, written only when the command asks for it and never the truth: the result is. An
entry is `{"run": …, "text": …}`; a new `run` means that the answer began anew and what came before it is void. The last
entry of a run that ended whole is `{"run": …, "end": "1"}`; without Redis a reader gets the whole text from the result.
"""

from uuid import UUID

KEEP_SECONDS = 900
"""How long a stream stays after its last entry."""

MAX_ENTRIES = 20_000
"""Older entries of a longer stream may be trimmed; a reader then takes the rest from the result."""

RUN, TEXT, END = "run", "text", "end"


def stream_key(publisher: str, command_id: UUID) -> str:
    """The Redis key of a command's stream.

    Args:
        publisher: The command's publisher.
        command_id: The command.
    """
    return f"ish:tokens:{publisher}:{command_id}"
