import asyncio
import base64
import io
import struct
import zipfile
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from ops.simulators.phone.apk import NotAnApk, read_apk, write_apk
from ops.simulators.phone.device import LATIN_KEYBOARD, Device
from ops.simulators.phone.effects import EffectLog
from ops.simulators.phone.lab import shell, until
from ops.simulators.phone.status import effect_line, screen_lines

KEYBOARD = "com.android.adbkeyboard/.AdbIME"
PERPLEXITY = "ai.perplexity.app.android"


@pytest.fixture
def device() -> Device:
    return Device("SIM1", EffectLog(None))


async def says(device: Device, line: str, *, exit_code: int = 0, stdin: bytes = b"") -> str:
    printed = await shell(device, line, stdin=stdin)
    assert printed.exit_code == exit_code, printed
    return (printed.stdout + printed.stderr).decode()


def latest(device: Device) -> dict[str, object]:
    return device.effects.latest[-1]


def broadcast(text: str, *, package: str = "com.android.adbkeyboard") -> str:
    return f"am broadcast -a ADB_INPUT_B64 --es msg {base64.b64encode(text.encode()).decode()} -p {package}"


async def use_keyboard(device: Device) -> None:
    await says(device, f"ime enable {KEYBOARD} && ime set {KEYBOARD} && am start -n com.ish.notes/.Notes")


async def test_apps_start_by_component_by_icon_and_by_address(device: Device) -> None:
    assert "Starting: Intent" in await says(device, "am start -W -n com.ish.notes/com.ish.notes.Notes")
    assert "com.ish.notes/.Notes" in await says(device, "dumpsys window | grep -E 'mCurrentFocus|mFocusedApp'")
    assert await says(device, f"monkey -p {PERPLEXITY} -c android.intent.category.LAUNCHER 1") == "Events injected: 1\n"
    assert PERPLEXITY in await says(device, "dumpsys activity activities | grep mResumedActivity")
    await says(device, "am start -a android.intent.action.VIEW -d 'https://example.org/?a=1&b=2'")
    assert latest(device)["url"] == "https://example.org/?a=1&b=2"
    assert "Simulated page of https://example.org/?a=1&b=2" in screen_lines(device)


@pytest.mark.parametrize(
    ("line", "exit_code", "said"),
    [
        ("am start -n com.none/.A", 1, "Activity class {com.none/.A} does not exist"),
        ("am start -n com.ish.notes/.Other", 1, "does not exist"),
        ("am start -a android.intent.action.VIEW -d ftp://x", 1, "unable to resolve"),
        ("am start -a android.intent.action.VIEW -d https://x -p com.ish.notes", 1, "unable to resolve"),
        ("monkey -p com.none -c android.intent.category.LAUNCHER 1", 252, "No activities found"),
        ("monkey -p com.android.adbkeyboard -c android.intent.category.LAUNCHER 1", 252, "No activities found"),
        ("input tap 1", 255, "Invalid arguments"),
        ("input text é", 255, "NullPointerException"),
        ("pm uninstall com.none", 1, "Failure [DELETE_FAILED_INTERNAL_ERROR]"),
        ("pm uninstall com.android.settings", 1, "Failure"),
        ("pm clear com.none", 1, "Failed"),
        ("pm path com.none", 1, ""),
        ("pm install /sdcard/none.apk", 1, "Unable to open file"),
        ("ime set com.none/.A", 255, "Unknown input method"),
        (f"ime set {KEYBOARD}", 255, "Unknown input method"),
        ("settings get nowhere a", 255, "Invalid namespace"),
        ("cmd none", 20, "Can't find service"),
        ("screenrecord --time-limit 181 /sdcard/a.mp4", 2, "outside acceptable range"),
        ("screenrecord --time-limit 1 /system/a.mp4", 1, "Read-only"),
        ("uiautomator dump /system/a.xml", 1, "Read-only"),
    ],
)
async def test_what_fails_says_why_and_has_no_effect(device: Device, line: str, exit_code: int, said: str) -> None:
    assert said in await says(device, line, exit_code=exit_code)
    assert device.effects.count == 0


async def test_a_key_that_android_does_not_know_is_pressed_in_silence(device: Device) -> None:
    for key in ("NOPE", "home", "9999"):
        assert await says(device, f"input keyevent {key}") == ""
        assert latest(device)["keys"] == ["UNKNOWN"]


async def test_a_phone_without_hardware_keys_runs_no_monkey_that_might_press_one(device: Device) -> None:
    device.control.change(hardware_keys=False)
    line = f"monkey -p {PERPLEXITY} -c android.intent.category.LAUNCHER"

    assert "** SYS_KEYS has no physical keys but with factor 2.0%." in await says(device, f"{line} 1", exit_code=251)
    assert await says(device, f"{line} --pct-syskeys 0 1") == "Events injected: 1\n"


@pytest.mark.parametrize("line", ["pm list packages", "pm uninstall com.none", "cmd package list packages --user 150"])
async def test_a_user_that_adb_may_not_see_fails_what_asks_about_all(device: Device, line: str) -> None:
    device.control.change(closed_users=(150,), user=10)

    said = await says(device, line, exit_code=255)

    assert said.splitlines()[1].startswith("Exception occurred while executing")
    assert "Shell does not have permission to access user 150" in said
    assert await says(device, "am get-current-user") == "10\n"
    assert "package:" in await says(device, "pm list packages --user 10")


async def test_the_package_manager_says_which_activity_an_icon_opens(device: Device) -> None:
    ask = "cmd package resolve-activity --brief --user 0"

    assert (await says(device, f"{ask} com.ish.notes")).splitlines()[-1].strip() == "com.ish.notes/.Notes"
    assert await says(device, f"{ask} com.none") == "No activity found\n"
    device.control.change(several_icons=True)
    assert "ResolverActivity" in await says(device, f"{ask} com.ish.notes")
    assert "com.ish.notes/.Notes" in await says(device, "cmd package query-activities --brief com.ish.notes")
    device.control.change(knows_cmd=False)
    await says(device, f"{ask} com.ish.notes", exit_code=127)


async def test_a_dump_of_a_moving_screen_fails_and_exits_with_0(device: Device) -> None:
    path = "/data/local/tmp/a.xml"
    device.control.change(ui_dump="animated")

    assert await says(device, f"uiautomator dump {path}") == "ERROR: could not get idle state.\n"
    assert "dumped to" in await says(device, f"uiautomator dump --compressed {path}")
    device.control.change(ui_dump="never_idle")
    assert await says(device, f"uiautomator dump --compressed {path}") == "ERROR: could not get idle state.\n"


async def test_a_dump_may_find_no_window_or_hold_what_xml_forbids(device: Device) -> None:
    device.control.change(ui_dumps_without_window=1, ui_dump_noise="invalid_xml")

    assert "null root node returned" in await says(device, "uiautomator dump /dev/tty")
    printed = await shell(device, "uiautomator dump /dev/tty")
    with pytest.raises(ET.ParseError):
        ET.fromstring(printed.stdout.partition(b"</hierarchy>")[0] + b"</hierarchy>")  # noqa: S314  # the phone's own
    device.control.change(ui_dump_noise="stack_trace")
    assert "java.lang.NoSuchMethodException" in await says(device, "uiautomator dump /dev/tty")


async def test_programs_take_as_long_as_on_a_phone_times_the_pace(device: Device) -> None:
    device.control.change(pace=10)
    async with asyncio.TaskGroup() as tasks:
        tap = tasks.create_task(shell(device, "input tap 1 2"))
        await until(lambda: device.effects.count > 0)

        assert not tap.done()  # for 5 s more
        tap.cancel()


async def test_any_text_arrives_through_the_adb_keyboard_as_it_is(device: Device) -> None:
    await use_keyboard(device)
    text = "日本語 🙂👩‍👩‍👧 'q' \"d\" $(id)\n\ttab"

    assert "Broadcast completed: result=0" in await says(device, broadcast(text))

    assert device.screen.typed["com.ish.notes"] == text
    assert latest(device)["text"] == text
    await says(device, "am broadcast -a ADB_CLEAR_TEXT -p com.android.adbkeyboard")
    assert device.screen.typed["com.ish.notes"] == ""


@pytest.mark.parametrize("line", [broadcast("x", package="com.other"), "am broadcast -a ADB_INPUT_B64 --es msg -"])
async def test_a_broadcast_that_the_keyboard_cannot_take_changes_nothing(device: Device, line: str) -> None:
    await use_keyboard(device)
    effects_before = device.effects.count

    assert "Broadcast completed: result=0" in await says(device, line)

    assert device.effects.count == effects_before


async def test_the_adb_keyboard_must_be_installed_enabled_and_in_use(device: Device) -> None:
    assert await says(device, "ime list -s") == f"{LATIN_KEYBOARD}\n"
    assert await says(device, "ime list -s -a") == f"{LATIN_KEYBOARD}\n{KEYBOARD}\n"
    await says(device, broadcast("x"))
    assert device.effects.count == 0

    await use_keyboard(device)
    assert await says(device, "settings get secure default_input_method") == f"{KEYBOARD}\n"
    await says(device, f"settings put secure default_input_method {LATIN_KEYBOARD}")
    await says(device, broadcast("x"))
    assert "com.ish.notes" not in device.screen.typed

    await use_keyboard(device)
    await says(device, "pm uninstall com.android.adbkeyboard")
    assert await says(device, "settings get secure default_input_method; ime list -s -a") == f"{LATIN_KEYBOARD}\n" * 2


async def test_a_phone_may_come_without_the_adb_keyboard() -> None:
    device = Device("SIM1", EffectLog(None), keyboard=False)

    assert "adbkeyboard" not in await says(device, "pm list packages; ime list -a -s")


async def test_dumpsys_says_whether_something_can_be_typed(device: Device) -> None:
    assert "mInputShown=false" in await says(device, "dumpsys input_method")
    await says(device, "am start -n com.ish.notes/.Notes")
    assert "mInputShown=true" in await says(device, "dumpsys input_method")
    assert "versionName=2.42.1" in await says(device, f"dumpsys package {PERPLEXITY}")
    assert "Unable to find package: com.none" in await says(device, "dumpsys package com.none")
    assert "mWakefulness=Awake" in await says(device, "dumpsys power")
    assert "Can't find service: none" in await says(device, "dumpsys none")


async def test_an_app_is_installed_shown_started_and_removed(device: Device) -> None:
    apk = write_apk("org.example.thing")

    assert await says(device, f"cmd package install -r -S {len(apk)}", stdin=apk) == "Success\n"
    assert "package:org.example.thing\n" in await says(device, "pm list packages -3 example")
    assert await says(device, "pm path org.example.thing") == "package:/data/app/org.example.thing/base.apk\n"
    assert "<Thing>" in screen_lines(device)
    await says(device, "monkey -p org.example.thing -c android.intent.category.LAUNCHER 1")
    assert screen_lines(device) == ["Thing"]
    assert await says(device, "pm uninstall org.example.thing") == "Success\n"
    assert device.screen.app.package == "com.ish.launcher"
    assert "org.example.thing" not in await says(device, "pm list packages")


async def test_an_apk_in_a_file_is_installed_too(device: Device) -> None:
    device.files.write("/data/local/tmp/a.apk", write_apk("org.example.thing"))

    assert await says(device, "pm install -r /data/local/tmp/a.apk") == "Success\n"
    assert latest(device)["package"] == "org.example.thing"


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", write_apk("org.example.thing")[:-40]], ids=["none", "text", "cut"]
)
async def test_what_is_no_apk_is_not_installed(device: Device, content: bytes) -> None:
    said = await says(device, f"pm install -S {len(content)}", stdin=content, exit_code=1)

    assert said.startswith("Failure [INSTALL_PARSE_FAILED_NOT_APK")
    assert device.effects.count == 0


async def test_an_install_whose_stream_ends_early_fails(device: Device) -> None:
    assert "ended early" in await says(device, "pm install -S 1000", stdin=b"x" * 999, exit_code=1)


def test_a_zip_without_a_binary_manifest_is_no_apk() -> None:
    for name, content in (("other", b""), ("AndroidManifest.xml", b"<manifest package='a.b'/>")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, content)
        with pytest.raises(NotAnApk):
            read_apk(buffer.getvalue())


async def test_the_screen_is_dumped_to_a_file_or_the_terminal(device: Device) -> None:
    assert await says(device, "uiautomator dump") == "UI hierchary dumped to: /sdcard/window_dump.xml\n"
    document = await says(device, "cat /sdcard/window_dump.xml")
    labels = {node.get("text") for node in ET.fromstring(document).iter("node")}  # noqa: S314  # our own document
    assert {"Notes", "Browser", "Settings", "Perplexity"} <= labels
    assert await says(device, "uiautomator dump /dev/tty") == document + "UI hierchary dumped to: /dev/tty\n"

    device.control.change(ui_dump="never_idle")
    assert await says(device, "uiautomator dump") == "ERROR: could not get idle state.\n"
    await says(device, "input keyevent SLEEP")
    device.control.change(ui_dump="normal")
    assert 'package="com.android.systemui"' in await says(device, "uiautomator dump /dev/tty")


async def test_a_screenshot_shows_what_is_on_the_screen(device: Device) -> None:
    pictures = [(await shell(device, "screencap -p")).stdout]
    await says(device, "am start -n com.ish.notes/.Notes; input text hello; screencap -p /sdcard/a.png")
    pictures.append((await shell(device, "cat /sdcard/a.png")).stdout)
    await says(device, "input keyevent POWER")
    pictures.append((await shell(device, "screencap -p")).stdout)

    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    assert {image.size for image in images} == {(720, 1280)}
    assert len({image.tobytes() for image in images}) == 3
    assert images[2].getbbox() is None


async def test_a_record_is_a_movie_of_what_happened(device: Device) -> None:
    await says(device, "screenrecord --time-limit=1 /sdcard/a.mp4")

    movie = (await shell(device, "cat /sdcard/a.mp4")).stdout
    boxes = {}
    position = 0
    while position < len(movie):
        size, name = struct.unpack_from(">I4s", movie, position)
        boxes[name] = movie[position + 8 : position + size]
        position += size
    assert list(boxes) == [b"ftyp", b"mdat", b"moov"]
    [first] = struct.unpack_from(">I", movie, movie.index(b"stco") + 12)
    [count] = struct.unpack_from(">I", movie, movie.index(b"stsz") + 12)
    [size] = struct.unpack_from(">I", movie, movie.index(b"stsz") + 16)
    assert count == 1
    with Image.open(io.BytesIO(movie[first : first + size])) as frame:
        assert (frame.format, frame.size) == ("JPEG", (720, 1280))
    assert latest(device)["action"] == "record"


async def test_the_log_is_shown_in_part_and_followed(device: Device) -> None:
    await says(device, "am start -n com.ish.notes/.Notes; am force-stop com.ish.notes")
    lines = (await says(device, "logcat -d")).splitlines()
    assert [line.split(": ")[1][:5] for line in lines] == ["the s", "START", "Force"]
    assert (await says(device, "logcat -d -t 1")).splitlines() == lines[-1:]
    assert (await says(device, "logcat -d -s ActivityTaskManager")).splitlines() == [lines[1]]
    assert (await says(device, "logcat -d 'ActivityTaskManager:I' '*:S'")).splitlines() == [lines[1]]
    await says(device, "logcat -c")
    assert await says(device, "logcat -d") == ""

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(says(device, "logcat"))
        await until(lambda: device.running > 0)
        following.cancel()


async def test_status_tells_a_person_what_can_be_seen_and_what_was_done(device: Device) -> None:
    await says(device, "input tap 160 320; input text hello")

    assert screen_lines(device) == ["Notes", "[hello] <- types here"]
    tapped, typed = map(effect_line, device.effects.latest)
    assert "input tap 160 320  -> Notes" in tapped
    assert "input text hello  -> com.ish.notes:id/editor" in typed
    await says(device, "input keyevent SLEEP")
    assert screen_lines(device) == ["the screen is off"]
