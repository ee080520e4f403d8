"""What an adb server lists, as real ones print it."""

import pytest

from workers.android.adb.listing import ListedPhone, read_listing

TLS = "adb-35121JEHN28132-jr888A (2)._adb-tls-connect._tcp"
NOT_ALLOWED = "no permissions (user in plugdev group); see [http://developer.android.com/tools/device.html]"


@pytest.mark.parametrize(
    ("line", "phone"),
    [
        (
            f"{TLS} device product:oriole model:Pixel_6 device:oriole transport_id:7",
            ListedPhone(TLS, "device", "7"),
        ),
        (f"{TLS} offline transport_id:8", ListedPhone(TLS, "offline", "8")),
        ("my offline device (2) device device:x transport_id:9", ListedPhone("my offline device (2)", "device", "9")),
        (
            "R58M12ABCDE            device usb:1-4.2 product:a model:b device:c transport_id:1",
            ListedPhone("R58M12ABCDE", "device", "1", "usb:1-4.2"),
        ),
        (
            "R58M12ABCDE            device 1-4.2 product:a transport_id:1",
            ListedPhone("R58M12ABCDE", "device", "1", "1-4.2"),
        ),
        ("127.0.0.2:5600 unauthorized transport_id:3", ListedPhone("127.0.0.2:5600", "unauthorized", "3")),
        ("emulator-5554          device", ListedPhone("emulator-5554", "device", "")),
        (
            f"A {NOT_ALLOWED} usb:1-1 transport_id:2",
            ListedPhone("A", NOT_ALLOWED, "2", "usb:1-1"),
        ),
        ("A newstate transport_id:2", ListedPhone("A", "newstate", "2")),
    ],
)
def test_a_line_is_read(line: str, phone: ListedPhone) -> None:
    assert read_listing(f"\n{line}\n") == [phone]


def test_phones_of_one_serial_number_are_told_apart_by_their_usb_ports() -> None:
    listed = read_listing(
        "0123456789ABCDEF device usb:1-1 transport_id:1\n0123456789ABCDEF device usb:1-2 transport_id:2\nB device\n"
    )
    assert [(one.serial, one.transport_id) for one in listed] == [("usb:1-1", "1"), ("usb:1-2", "2"), ("B", "")]


def test_phones_that_cannot_be_told_apart_are_shown_and_not_used() -> None:
    listed = read_listing("A device transport_id:1\nA device transport_id:2\n")
    assert listed == [ListedPhone("A", "ambiguous", "")]
