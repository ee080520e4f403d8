"""Payloads: what fits, and how precisely a misfit is named."""

import json
from typing import Any

import pytest

from contracts.commands import KINDS, InvalidPayload, decode_payload, encode_payload, fingerprint, routing_key
from contracts.errors import Permanent

RELAY = {"sender": "user", "message": "hello", "timestamp": "2026-05-01T12:00:00Z"}


def problems(kind: str, body: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidPayload) as invalid:
        decode_payload(KINDS[kind], json.dumps(body).encode())
    return [(one["field"], one["rule"]) for one in invalid.value.details["problems"]]


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"sender": "alien"}, "sender", "one of user, bot"),
        ({"message": ""}, "message", "not be empty"),
        ({"message": "x" * 10_001}, "message", "at most 10000 characters"),
        ({"message": "a\0b"}, "message", "NUL"),
        ({"metadata": {"a": {"b": "c\0"}}}, "metadata", "NUL"),
        ({"metadata": {"n": float("inf")}}, "metadata", "finite"),
        ({"timestamp": "yesterday"}, "timestamp", "2026-01-31T12:00:00Z"),
        ({"surprise": 1}, "surprise", "not known"),
        ({"conversation_id": "a b"}, "conversation_id", "must match ^"),
    ],
)
def test_a_misfit_is_named_by_field_and_rule(change: dict[str, Any], field: str, rule: str) -> None:
    [(named, sentence)] = problems("relay", {**RELAY, **change})

    assert named == field
    assert rule in sentence


@pytest.mark.parametrize("missing", ["sender", "message", "timestamp"])
def test_a_missing_field_is_named(missing: str) -> None:
    body = {name: value for name, value in RELAY.items() if name != missing}

    assert problems("relay", body) == [(missing, "is required")]


def test_every_fault_of_a_body_is_named_at_once() -> None:
    assert {field for field, _ in problems("relay", {"sender": "x", "message": "", "timestamp": 1e99})} == {
        "sender",
        "message",
        "timestamp",
    }


@pytest.mark.parametrize("body", [b"", b"{", b"hello", b"\xff\xfe", b'{"sender": "user"', b"[" * 100_000])
def test_a_body_that_is_no_json_says_so(body: bytes) -> None:
    with pytest.raises(Permanent) as error:
        decode_payload(KINDS["relay"], body)

    assert error.value.code == "not_json"


def test_json_that_is_no_object_is_a_misfit_and_not_a_crash() -> None:
    with pytest.raises(InvalidPayload):
        decode_payload(KINDS["relay"], b"[1, 2]")


def test_a_stamp_without_a_zone_is_utc() -> None:
    payload: Any = decode_payload(KINDS["relay"], json.dumps({**RELAY, "timestamp": "2026-05-01T12:00:00.5"}).encode())

    assert payload.timestamp.isoformat() == "2026-05-01T12:00:00.500000+00:00"


def test_canonical_bytes_do_not_depend_on_spacing_or_what_was_left_out() -> None:
    spaced = json.dumps(RELAY, indent=4).encode()
    tight = json.dumps(RELAY, separators=(",", ":")).encode()

    first, second = (encode_payload(decode_payload(KINDS["relay"], body)) for body in (spaced, tight))

    assert first == second
    assert b"metadata" not in first


def test_the_same_body_under_another_kind_is_another_command() -> None:
    assert fingerprint("relay", b"{}") != fingerprint("ai.send", b"{}")
    assert len(fingerprint("relay", b"{}")) == 16


def test_batch_priority_has_its_own_queue_for_ai_only() -> None:
    assert routing_key(KINDS["ai.send"], priority="batch") == "ai.send.batch"
    assert routing_key(KINDS["relay"], priority="batch") == "relay"
