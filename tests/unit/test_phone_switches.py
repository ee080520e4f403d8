"""The switches of the simulated phone: each does what its sentence says, and a wrong one is named."""

import io

import pytest
from PIL import Image

from ops.simulators.phone.behaviour import Behaviour, described, read_changes
from ops.simulators.phone.device import Device
from ops.simulators.phone.effects import EffectLog
from ops.simulators.phone.fleet import told_apart
from ops.simulators.phone.lab import shell


@pytest.fixture
def device() -> Device:
    return Device("SIM1", EffectLog(None))


async def says(device: Device, line: str, *, exit_code: int = 0) -> str:
    printed = await shell(device, line)
    assert printed.exit_code == exit_code, printed
    return (printed.stdout + printed.stderr).decode()


async def size(device: Device, line: str) -> tuple[int, int]:
    return Image.open(io.BytesIO((await shell(device, line)).stdout)).size


@pytest.mark.parametrize(
    ("line", "exit_code", "said"),
    [
        ("getprop sys.boot_completed", 0, "\n"),
        ("input tap 1 1", 20, "cmd: Can't find service: input\n"),
        ("pm list packages", 20, "cmd: Can't find service: package\n"),
        ("cmd package list packages", 20, "cmd: Can't find service: package\n"),
        ("dumpsys battery", 0, "Can't find service: battery\n"),
        ("monkey -p a 1", 253, "** Error: Unable to connect to activity manager; is the system running?\n"),
    ],
)
async def test_a_booting_phone_has_no_services(device: Device, line: str, exit_code: int, said: str) -> None:
    device.control.change(boot="booting")
    assert await says(device, line, exit_code=exit_code) == said

    device.control.change(boot="completed")
    assert await says(device, "getprop sys.boot_completed") == "1\n"


async def test_a_lock_screen_takes_touches_until_it_is_swiped_up(device: Device) -> None:
    await says(device, "am start -n com.ish.notes/.Notes")
    device.control.change(lock="swipe")

    assert "NotificationShade" in await says(device, "dumpsys window")
    assert 'package="com.android.systemui"' in await says(device, "uiautomator dump /dev/tty")
    await says(device, "input text lost && input swipe 360 1000 360 300 && input tap 360 600 && input text kept")

    assert device.behaviour.lock == "none"
    assert device.screen.typed == {"com.ish.notes": "kept"}


async def test_a_secure_lock_screen_stays(device: Device) -> None:
    device.control.change(lock="secure")
    await says(device, "input swipe 360 1000 360 300 && am start -n com.ish.notes/.Notes")
    assert "keyguard" in await says(device, "uiautomator dump /dev/tty")


async def test_a_turned_screen_changes_its_picture_and_its_dump(device: Device) -> None:
    device.control.change(rotation=1)
    assert await size(device, "screencap -p") == (1280, 720)
    assert '<hierarchy rotation="1">' in await says(device, "uiautomator dump /dev/tty")
    assert "[0,0][1280,720]" in await says(device, "uiautomator dump /dev/tty")
    assert "SurfaceOrientation: 1" in await says(device, "dumpsys input")


async def test_a_phone_with_two_displays_warns_unless_one_is_chosen(device: Device) -> None:
    device.control.change(displays=2)
    listed = await says(device, "dumpsys SurfaceFlinger --display-id")
    assert (await shell(device, "screencap -p")).stdout.startswith(b"[Warning] Multiple displays")
    assert await size(device, f"screencap -d {listed.split()[1]} -p") == (720, 1280)
    assert "not valid" in await says(device, "screencap -d 7 -p", exit_code=1)


def test_phones_with_one_serial_have_names_of_their_own() -> None:
    assert told_apart(["A", "B"]) == ["A", "B"]
    assert told_apart(["A", "B", "A", ""]) == ["A-1", "B", "A-3", "phone-4"]


def test_every_switch_is_described_with_its_default() -> None:
    for paragraph, name in zip(described().split("\n\n"), Behaviour.model_fields, strict=True):
        assert paragraph.startswith(f"{name}=")
        assert not paragraph.endswith(": ")


def test_switches_are_read_from_words() -> None:
    words = ["boot=booting", "shell_v2=false", 'slow_seconds={"input": 1}', "rotation=3"]
    assert read_changes(words) == {"boot": "booting", "shell_v2": False, "slow_seconds": {"input": 1}, "rotation": 3}


@pytest.mark.parametrize(
    ("word", "named"), [("boot", "NAME=VALUE"), ("none=1", "NAME=VALUE"), ("rotation=9", "rotation: ")]
)
def test_a_wrong_switch_is_named(word: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_changes([word])
