from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.services.waiting_for import waiting_for

AT = datetime(2026, 1, 1, tzinfo=UTC)
ROW: dict[str, Any] = {
    "kind": "android.execute",
    "state": "queued",
    "error_code": None,
    "retry_at": None,
    "device": "P1",
    "device_state": "device",
    "device_seen": True,
    "hint": None,
    "queue_depth": 3,
    "served": True,
    "abandoned": False,
    "some_ready": True,
}


def reason(**facts: Any) -> dict[str, Any] | None:
    return waiting_for(ROW | facts)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"device_state": "unauthorized", "hint": "accept the prompt"}, "device_unauthorized"),
        ({"device_state": "offline"}, "device_offline"),
        ({"device_state": "booting"}, "device_booting"),
        ({"device_state": "recovery"}, "device_not_ready"),
        ({"device_state": None, "device_seen": None}, "device_offline"),
        ({"device_seen": False}, "device_offline"),
        ({"device": None, "device_state": None, "some_ready": False}, "device_not_ready"),
        ({"device": None, "device_state": None}, "turn"),
        ({"served": False}, "worker"),
        ({}, "turn"),
        ({"state": "retrying", "error_code": "device_busy", "retry_at": AT}, "device_busy"),
        ({"state": "retrying", "error_code": "internal", "retry_at": AT}, "retry"),
        ({"state": "running", "abandoned": True}, "takeover"),
        ({"state": "running", "device_state": "unresponsive"}, "device_not_ready"),
        ({"kind": "ai.send", "device": None, "state": "retrying", "error_code": "no_capacity"}, "provider_limit"),
        (
            {"kind": "ai.send", "device": None, "state": "retrying", "error_code": "provider_rate_limited"},
            "provider_limit",
        ),
        ({"kind": "ai.send", "device": None, "state": "retrying", "error_code": "provider_unavailable"}, "retry"),
        ({"kind": "relay", "device": None}, "turn"),
    ],
)
def test_each_wait_has_its_reason(facts: dict[str, Any], expected: str) -> None:
    found = reason(**facts)

    assert found is not None
    assert found["reason"] == expected


def test_what_runs_waits_for_nothing() -> None:
    assert reason(state="running") is None


def test_a_phone_that_is_not_ready_is_told_with_what_to_do() -> None:
    found = reason(device_state="unauthorized", hint="accept the prompt")

    assert found == {
        "reason": "device_unauthorized",
        "message": "P1 is unauthorized: accept the prompt",
        "device": "P1",
        "device_state": "unauthorized",
    }


def test_another_try_names_the_error_and_the_time() -> None:
    found = reason(kind="relay", device=None, state="retrying", error_code="internal", retry_at=AT)

    assert found == {"reason": "retry", "message": "another try, after internal", "error_code": "internal", "until": AT}


def test_a_turn_names_how_many_are_in_the_phones_queue() -> None:
    assert reason() == {
        "reason": "turn",
        "message": "its turn: 3 commands are in this phone's queue",
        "device": "P1",
        "device_state": "device",
        "queue_depth": 3,
    }
