"""What phones are called: a name never passes from one phone to another."""

from datetime import UTC, datetime
from typing import Any

import pytest

from workers.android.monitor.devices import DeviceFacts
from workers.android.monitor.identity import Connection, Name, Sighting, address_name, hints, names, usable_serial

S = "127.0.0.1:5037"
A: Connection = (S, "127.0.0.2:5600", "1")
B: Connection = (S, "127.0.0.3:5600", "2")
ELSEWHERE: Connection = ("127.0.0.1:5038", "127.0.0.2:5600", "1")


def known(serial: str, connection: Connection, reported: str | None = "X") -> DeviceFacts:
    usual: dict[str, Any] = dict.fromkeys(("hint", "android_version", "battery_percent", "screen"))
    server, address, _ = connection
    return DeviceFacts(
        serial=serial,
        adb_server=server,
        transport_serial=address,
        state="device",
        model="m",
        seen_at=datetime.now(UTC),
        reported_serial=reported,
        **usual,
    )


def called(
    seen: list[Sighting], record: list[DeviceFacts] | None = None, *, are_one: bool | None = False
) -> dict[Connection, str | None]:
    found = names(seen, record or [], lambda _, __: are_one)
    return {connection: None if name.set_aside else name.name for connection, name in found.items()}


def saw(connection: Connection, reported: str = "X", *, marked: bool = False, named: str | None = None) -> Sighting:
    return Sighting(connection, reported, marked, named)


def test_a_phone_with_a_serial_of_its_own_is_called_by_it() -> None:
    assert called([saw(A, "X"), saw(B, "Y")]) == {A: "X", B: "Y"}


def test_twins_seen_together_are_called_by_their_addresses() -> None:
    assert called([saw(A), saw(B)]) == {A: A[1], B: B[1]}


def test_the_phone_that_has_the_name_keeps_it_when_a_twin_appears() -> None:
    record = [known("X", A)]
    assert called([saw(A, named="X"), saw(B)], record) == {A: "X", B: B[1]}
    assert called([saw(A, named="X"), saw(B)], record, are_one=None) == {A: "X", B: None}


def test_a_twin_does_not_get_the_name_of_one_that_is_gone() -> None:
    assert called([saw(B)], [known("X", A)]) == {B: B[1]}
    assert called([saw(B)], [known(A[1], A)]) == {B: B[1]}


def test_a_marked_phone_keeps_its_name_wherever_it_is_connected() -> None:
    assert called([saw(B, marked=True)], [known("X", A)]) == {B: "X"}


def test_the_marked_phone_wins_over_one_at_its_address() -> None:
    assert called([saw(A), saw(B, marked=True)], [known("X", A)]) == {A: A[1], B: "X"}


def test_one_phone_over_two_connections_has_one_name() -> None:
    assert called([saw(A), saw(B)], are_one=True) == {A: "X", B: "X"}
    assert called([saw(A, marked=True), saw(B, marked=True)], are_one=True) == {A: "X", B: "X"}


def test_until_it_is_known_whether_two_are_one_neither_is_used() -> None:
    assert called([saw(A, marked=True), saw(B, marked=True)], are_one=None) == {A: None, B: None}


def test_copies_that_are_both_marked_lose_the_name() -> None:
    assert called([saw(A, marked=True), saw(B, marked=True)]) == {A: A[1], B: B[1]}


def test_names_by_address_are_kept_when_the_twin_is_gone() -> None:
    assert called([saw(A)], [known(A[1], A), known(B[1], B)]) == {A: A[1]}


def test_a_phone_known_before_serials_were_recorded_keeps_its_name() -> None:
    assert called([saw(A)], [known("X", A, None)]) == {A: "X"}
    assert called([saw(A, "EMULATOR33X1X23X0")], [known("EMULATOR33X1X23X0", A, None)]) == {A: "EMULATOR33X1X23X0"}


@pytest.mark.parametrize(
    "reported",
    ["", "unknown", "0123456789ABCDEF", "0123456789abcdef", "00000000", "EMULATOR33X1X23X0", "a/b", "x" * 129, "a\0"],
)
def test_serials_that_tell_nothing_name_no_phone(reported: str) -> None:
    assert usable_serial(reported) is None
    assert called([saw(A, reported)]) == {A: A[1]}


def test_one_address_at_two_servers_is_two_names() -> None:
    assert called([saw(A, ""), saw(ELSEWHERE, "")]) == {A: f"{A[1]}@{S}", ELSEWHERE: f"{A[1]}@{ELSEWHERE[0]}"}
    assert called([saw(ELSEWHERE, "")], [known(A[1], A, "")]) == {ELSEWHERE: f"{A[1]}@{ELSEWHERE[0]}"}


def test_one_phone_of_no_serial_over_two_servers_has_one_name() -> None:
    assert called([saw(A, ""), saw(ELSEWHERE, "")], are_one=True) == {A: A[1], ELSEWHERE: A[1]}


def test_addresses_are_names_that_commands_can_give() -> None:
    assert address_name("adb-3512-jr888A (2)._adb-tls-connect._tcp") == "adb-3512-jr888A (2)._adb-tls-connect._tcp"
    assert address_name("*Zoé/s phone ") == "phone_Zo__s phone"


def test_a_person_is_told_why_a_phone_is_called_by_its_address() -> None:
    told = hints({A: Name(A[1], shares="X"), B: Name("Y")})
    assert list(told) == [A]
    assert "X" in told[A]
