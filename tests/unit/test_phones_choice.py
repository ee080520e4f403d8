from typing import Any

import pytest

from contracts.android.command import AndroidExecute
from contracts.errors import CommandError, Deferred, ErrorCode, Permanent
from workers.android.adb.server import AdbFailure
from workers.device_pool.selection import Candidate, Refuse, To, Wait, choose

DOWN = AdbFailure(ErrorCode.ADB_SERVER_DOWN, "no adb server answers at h:1")


def phone(serial: str, **facts: Any) -> Candidate:
    usual: dict[str, Any] = {
        "transport": f"{serial}:5555",
        "state": "device",
        "hint": None,
        "tags": frozenset(),
        "here": True,
        "open": True,
        "idle": True,
    }
    return Candidate(serial=serial, **usual | facts)


def command(**fields: Any) -> AndroidExecute:
    return AndroidExecute.model_validate({"action": "battery", **fields})


def refusal(*phones: Candidate, failure: AdbFailure | None = None, **fields: Any) -> CommandError:
    decision = choose(command(**fields), phones, failure=failure)
    assert isinstance(decision, Refuse)
    return decision.error


def test_any_idle_phone_will_do_and_one_of_this_worker_is_taken_first() -> None:
    assert choose(command(), [phone("A", here=False), phone("B")], failure=None) == To("B")
    assert choose(command(), [phone("A", here=False), phone("B", idle=False)], failure=DOWN) == To("A")


def test_when_all_are_busy_it_waits() -> None:
    assert choose(command(), [phone("A", idle=False), phone("B", state="offline", idle=False)], failure=None) == Wait()


def test_a_tag_narrows_the_choice() -> None:
    phones = [phone("A"), phone("B", tags=frozenset({"lab"}), idle=False)]

    assert choose(command(tag="lab"), phones, failure=None) == Wait()
    error = refusal(*phones, tag="other")
    assert isinstance(error, Permanent)
    assert error.code is ErrorCode.DEVICE_NOT_FOUND


@pytest.mark.parametrize("name", ["A", "A:5555"])
def test_a_named_phone_is_taken_by_either_name_however_busy_it_is(name: str) -> None:
    assert choose(command(device=name), [phone("A", idle=False), phone("B")], failure=None) == To("A")


def test_a_phones_own_serial_goes_before_anothers_address() -> None:
    phones = [phone("A", transport="B"), phone("B")]

    assert choose(command(device="B"), phones, failure=None) == To("B")


def test_a_named_phone_whose_queue_nobody_consumes_is_waited_for() -> None:
    error = refusal(phone("A", state="offline", open=False, hint="plug it in"), device="A")

    assert isinstance(error, Deferred)
    assert error.code is ErrorCode.DEVICE_OFFLINE
    assert "plug it in" in error.message


def test_an_unknown_phone_is_an_error_unless_an_adb_server_may_know_it() -> None:
    unknown = refusal(phone("A"), device="X")
    hidden = refusal(phone("A"), failure=DOWN, device="X")

    assert isinstance(unknown, Permanent)
    assert "A" in unknown.message
    assert isinstance(hidden, Deferred)
    assert hidden.code is ErrorCode.ADB_SERVER_DOWN


def test_when_none_is_ready_the_one_that_a_person_can_mend_is_told() -> None:
    error = refusal(phone("A", state="offline", idle=False), phone("B", state="unauthorized", idle=False), failure=DOWN)

    assert isinstance(error, Deferred)
    assert error.code is ErrorCode.DEVICE_UNAUTHORIZED
    assert "USB debugging prompt" in error.message


def test_without_any_phone_it_says_what_to_configure() -> None:
    nothing, down = refusal(), refusal(failure=DOWN)

    assert isinstance(nothing, Permanent)
    assert nothing.code is ErrorCode.DEVICE_NOT_CONFIGURED
    assert isinstance(down, Deferred)
    assert down.retry_after_seconds is not None
    assert down.retry_after_seconds > 2
