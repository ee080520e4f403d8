"""What is kept of messages that no worker gets."""

import json
from typing import Any

import pytest

from contracts.errors import ErrorCode
from workers.outbox.dead_letters.conversion import plain_table, storable
from workers.outbox.dead_letters.drain import verdict_of


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        ("a\x00b", "a\N{REPLACEMENT CHARACTER}b"),
        (b"\xff", "\N{REPLACEMENT CHARACTER}"),
        ("\ud800", "?"),
        (7, "7"),
        ("x" * 5000, "x" * 2000),
    ],
)
def test_any_property_becomes_text_that_postgres_takes(value: Any, kept: str | None) -> None:
    assert storable(value) == kept


def test_any_headers_become_json() -> None:
    deep: Any = "end"
    for _ in range(100):
        deep = [deep]

    table = plain_table(
        {"n\x00": "v\x00", "big": 2**80, "raw": b"\xff", "list": [{"a": None}, 1.5, True], "deep": deep}
    )

    assert json.loads(json.dumps(table)) == table
    assert table["list"] == [{"a": None}, 1.5, True]
    assert "\\u0000" not in json.dumps(table)


def test_a_delivery_limit_is_told_from_other_reasons() -> None:
    limit = verdict_of({"x-death": [{"queue": "ish.relay", "reason": "delivery_limit", "count": 1}]}, "ish.relay")
    other = verdict_of({"x-death": [{"queue": "ish.ai", "reason": "rejected"}]}, "ish.ai")

    assert (limit.code, limit.queue, limit.routing_key) == (ErrorCode.DELIVERY_LIMIT, "ish.relay", "relay")
    assert (other.code, other.routing_key) == (ErrorCode.POISON, "ai.send")
    assert "rejected" in other.sentence


@pytest.mark.parametrize("deaths", [None, [], ["?"], [{}], {"queue": "x"}])
def test_a_dead_letter_without_a_readable_death_is_known_by_its_key(deaths: Any) -> None:
    verdict = verdict_of({"x-death": deaths}, "ish.android")

    assert (verdict.code, verdict.queue, verdict.routing_key) == (ErrorCode.POISON, "ish.android", "android.execute")
