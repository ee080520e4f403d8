"""A whole number is one however it is written; what only looks like one is told."""

import json
from typing import Any

import pytest

from contracts.commands import KINDS, InvalidPayload, decode_payload


@pytest.mark.parametrize(
    ("kind", "body", "path"),
    [
        ("ai.send", {"prompt": "x", "max_tokens": 100.0}, "max_tokens"),
        ("ai.send", {"prompt": "x", "seed": -7.0}, "seed"),
        ("android.execute", {"action": "logcat", "lines": 20.0}, "lines"),
        ("android.execute", {"action": "tap", "x": 3.0, "y": 4}, "x"),
        ("android.execute", {"action": "screenshot", "display": 1.0}, "display"),
        ("android.execute", {"action": "record", "seconds": 5.0}, "seconds"),
    ],
)
def test_a_whole_number_with_a_fraction_of_zero_is_one(kind: str, body: dict[str, Any], path: str) -> None:
    payload: Any = decode_payload(KINDS[kind], json.dumps(body).encode())
    value = getattr(getattr(payload, "root", payload), path)

    assert (type(value), value) == (int, body[path])


@pytest.mark.parametrize("value", [1.5, "5", True, [1]])
def test_what_is_none_is_told(value: object) -> None:
    with pytest.raises(InvalidPayload, match=r"^max_tokens: must be a whole number"):
        decode_payload(KINDS["ai.send"], json.dumps({"prompt": "x", "max_tokens": value}).encode())


def test_one_that_is_too_large_is_told() -> None:
    with pytest.raises(InvalidPayload, match=r"^max_tokens: must be at most 1000000"):
        decode_payload(KINDS["ai.send"], b'{"prompt": "x", "max_tokens": 1e30}')
