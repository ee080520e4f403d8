"""ZAI (Zhipu): OpenAI's form with error codes of its own, which decide whatever the HTTP status is.

A stream's chunks have no `object`, `delta.reasoning_content` is the model's reasoning, and the usage is on the last
chunk. Limits are calls in flight per model and account; nothing in the headers tells how many.
Source: https://docs.z.ai/api-reference/api-code.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

from contracts.errors import ErrorCode, Transient
from workers.ai.providers import chat_completions
from workers.ai.providers.dialect import Dialect
from workers.ai.providers.errors import (
    BUSY,
    FAILING,
    IN_FLIGHT,
    KEY_DEAD,
    NO_CREDIT,
    NO_MODEL,
    REFUSED,
    REJECTED,
    TOO_LONG,
    ErrorTable,
    Scope,
    Verdict,
    seconds_until,
)

AT_ONCE = Verdict(
    Transient,
    ErrorCode.PROVIDER_RATE_LIMITED,
    Scope.MODEL,
    "limits the requests at once",
    wait_seconds=1.0,
    shrinks=True,
)
QUOTA = Verdict(
    Transient,
    ErrorCode.PROVIDER_RATE_LIMITED,
    Scope.KEY,
    "has no quota left until its next reset",
    wait_seconds=3600.0,
    parks=True,
)
FAIR_USE = Verdict(
    Transient,
    ErrorCode.PROVIDER_RATE_LIMITED,
    Scope.KEY,
    "applies its fair-use policy",
    wait_seconds=600.0,
    parks=True,
)

_GROUPS: tuple[tuple[Verdict, tuple[int, ...]], ...] = (
    (AT_ONCE, (1302, 1303)),
    (BUSY, (1305, 1312)),
    (QUOTA, (1304, 1308, 1310)),
    (FAIR_USE, (1313,)),
    (KEY_DEAD, (1000, 1001, 1002, 1003, 1004, 1110, 1111, 1112, 1121)),
    (NO_CREDIT, (1113, 1309, 1311)),
    (REJECTED, (1210, 1212, 1213, 1214, 1215)),
    (NO_MODEL, (1211, 1220, 1221, 1222)),
    (TOO_LONG, (1261,)),
    (REFUSED, (1301,)),
    (FAILING, (500, 1120, 1200, 1230, 1234)),
    (IN_FLIGHT, (1231,)),
)
CODES: dict[str, Verdict] = {str(code): verdict for verdict, codes in _GROUPS for code in codes}

_RESET_TIME = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}")
_BEIJING = timezone(timedelta(hours=8))


def reset_seconds(headers: Mapping[str, str], message: str, now: datetime) -> float | None:
    """When a used-up quota is filled again: 1308 and 1310 name the time in their text, in ZAI's own time zone.

    Args:
        headers: Not used.
        message: The error's text.
        now: What the time is counted from.
    """
    del headers
    found = _RESET_TIME.search(message)
    try:
        reset = datetime.fromisoformat(found.group()).replace(tzinfo=_BEIJING) if found else None
    except ValueError:
        return None
    return None if reset is None else seconds_until(reset, now=now)


ZAI = Dialect(
    errors=ErrorTable(codes=CODES, reset_seconds=reset_seconds),
    finished={"stop": "stop", "length": "length"},
    unfinished={
        "sensitive": REFUSED,
        "content_filter": REFUSED,
        "network_error": FAILING,
        "model_context_window_exceeded": TOO_LONG,
    },
    build=chat_completions.build,
    read_event=chat_completions.read_event,
    read_whole=chat_completions.read_whole,
)
