"""The message that everybody relays: 1 KiB of text, the same from run to run."""

import random
from datetime import UTC, datetime
from typing import Any

_WORDS = (
    "please",
    "send",
    "the",
    "report",
    "to",
    "everyone",
    "before",
    "noon",
    "and",
    "say",
    "when",
    "it",
    "is",
    "done",
)
MESSAGE_CHARACTERS = 1024


def message() -> str:
    """1,024 characters of plain words."""
    choose = random.Random(7)
    text = " ".join(choose.choice(_WORDS) for _ in range(MESSAGE_CHARACTERS // 3))
    return text[:MESSAGE_CHARACTERS]


def relay_body(number: int, *, round_name: str) -> dict[str, Any]:
    """One relay's payload.

    Args:
        number: Which of the round's, from 0; a hundred conversations take turns.
        round_name: Tells rounds apart.
    """
    return {
        "sender": "user",
        "message": _MESSAGE,
        "timestamp": _SENT_AT,
        "metadata": {"round": round_name, "number": number},
        "conversation_id": f"bench-{number % 100}",
    }


_MESSAGE = message()
_SENT_AT = datetime(2025, 1, 1, 12, tzinfo=UTC).isoformat()
