import base64
import hashlib
import io
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contracts.android.command import action_from
from contracts.errors import ErrorCode, Permanent
from ops.simulators.phone import sh
from ops.simulators.phone.syntax import Simple
from workers.android.actions import Plan, plan
from workers.android.adb.server import ShellOutput
from workers.android.keyboard import line_for_any, line_for_ascii
from workers.android.png import NotAPicture, find_picture

DONE = ShellOutput(b"", b"", 0)


def plan_of(**fields: object) -> Plan:
    return plan(action_from(fields))


def picture(width: int = 3, height: int = 2) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (1, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def words_of(line: str) -> list[list[str]]:
    """The commands of a line as the simulated phone's shell reads it, none of their words a variable."""
    commands = sh.parse(line)
    assert all(isinstance(command, Simple) for command in commands)
    simple = [command for command in commands if isinstance(command, Simple)]
    assert not any(part.is_variable for command in simple for word in command.words for part in word)
    return [["".join(part.text for part in word) for word in command.words] for command in simple]


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=60))
def test_any_ascii_text_is_typed_character_for_character(text: str) -> None:
    typed = words_of(line_for_ascii(text))

    assert all(argv[:2] == ["input", "text"] and len(argv) == 3 for argv in typed)
    assert "".join(argv[2] for argv in typed) == text
    assert not any("%s" in argv[2] for argv in typed)


@settings(deadline=None)
@given(st.text(min_size=1, max_size=2000))
def test_any_text_goes_to_adb_keyboard_as_base64_in_pieces(text: str) -> None:
    sent = words_of(line_for_any(text, in_use="com.android.adbkeyboard/.AdbIME"))

    assert all(argv[:5] == ["am", "broadcast", "-a", "ADB_INPUT_B64", "--es"] for argv in sent)
    assert b"".join(base64.b64decode(argv[6]) for argv in sent).decode() == text


@pytest.mark.parametrize(
    ("in_use", "back"),
    [
        ("com.a.b/.Ime", "ime set com.a.b/.Ime"),
        ("com.a.b/c.D$E", "ime set 'com.a.b/c.D$E'"),
        ("null", "ime reset"),
        ("com.a.b/.Ime; reboot", "ime reset"),
    ],
)
def test_the_input_method_that_was_in_use_is_set_back_and_the_exit_code_kept(in_use: str, back: str) -> None:
    line = line_for_any("日本", in_use=in_use)

    assert line.endswith(f"; r=$?; {back}; exit $r")


def test_a_line_is_never_longer_than_adb_takes() -> None:
    lines = [line_for_any("🙂" * 4000, in_use="null"), line_for_ascii("'" * 4000), line_for_ascii("%s" * 2000)]

    assert max(len(line.encode()) for line in lines) < 60_000


@settings(deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters=";|&$`<>(){}[]*?~#!\\'\"\n\r\0")),
        max_size=4,
    )
)
def test_a_free_command_reaches_the_shell_as_the_words_given(words: list[str]) -> None:
    argv = ["echo", *words]

    assert shlex.split(plan_of(action="shell", argv=argv).line) == argv


def test_a_screenshot_is_an_artifact_and_the_answer_only_says_where_it_is() -> None:
    content = picture()

    reading = plan_of(action="screenshot").read(ShellOutput(b"[Warning] several displays\n" + content, b"", 0))

    sha256 = hashlib.sha256(content).hexdigest()
    assert [artifact.content for artifact in reading.artifacts] == [content]
    assert reading.output == {
        "artifact": {
            "sha256": sha256,
            "size_bytes": len(content),
            "content_type": "image/png",
            "width": 3,
            "height": 2,
            "href": f"/api/artifacts/{sha256}",
        }
    }


@pytest.mark.parametrize(
    ("mode", "colour", "black"),
    [
        ("RGB", (0, 0, 0), True),
        ("RGBA", (0, 0, 0, 255), True),
        ("RGBA", (0, 0, 0, 0), True),
        ("L", 0, True),
        ("RGB", (0, 0, 1), False),
        ("RGBA", (9, 9, 9, 255), False),
    ],
)
def test_a_picture_of_nothing_but_black_says_so(mode: str, colour: tuple[int, ...], *, black: bool) -> None:
    for dot in (False, True):
        buffer = io.BytesIO()
        image = Image.new(mode, (720, 1280), colour)
        if dot:
            image.putpixel((300, 700), 255 if mode == "L" else (255, 255, 255, 255)[: len(mode)])
        image.save(buffer, "PNG")

        output = plan_of(action="screenshot").read(ShellOutput(buffer.getvalue(), b"", 0)).output

        assert output.get("all_black", False) is (black and not dot)
        assert ("hint" in output) is (black and not dot)


@pytest.mark.parametrize(
    "printed",
    [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"x" * 100, picture()[:-1], picture()[:40]],
    ids=["nothing", "text", "garbage", "without its end", "cut off"],
)
def test_a_broken_screenshot_is_an_error_and_not_a_black_picture(printed: bytes) -> None:
    with pytest.raises(Permanent) as caught:
        plan_of(action="screenshot").read(ShellOutput(printed, b"", 0))

    assert caught.value.code is ErrorCode.BAD_SCREENSHOT


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=len(picture()) - 1), st.integers(min_value=1, max_value=255))
def test_a_picture_with_any_flipped_byte_is_refused(position: int, flip: int) -> None:
    content = bytearray(picture())
    content[position] ^= flip

    with pytest.raises(NotAPicture):
        find_picture(bytes(content))


def test_a_failed_program_reports_its_exit_code_and_what_it_said() -> None:
    with pytest.raises(Permanent) as caught:
        plan_of(action="shell", argv=["false"]).read(ShellOutput(b"out", b"no such thing\n", 7))

    assert caught.value.code is ErrorCode.NONZERO_EXIT
    assert caught.value.details == {"exit_code": 7, "stdout": "out", "stderr": "no such thing\n"}
    assert "no such thing" in caught.value.message


def test_a_program_that_fails_with_exit_code_0_is_still_a_failure() -> None:
    with pytest.raises(Permanent) as caught:
        plan_of(action="tap", x=1, y=2).read(ShellOutput(b"", b"Error: Invalid arguments\n", 0))

    assert caught.value.code is ErrorCode.NONZERO_EXIT


def test_a_phone_that_forbids_input_is_denied_with_what_to_switch_on() -> None:
    with pytest.raises(Permanent) as caught:
        plan_of(action="tap", x=1, y=2).read(ShellOutput(b"", b"java.lang.SecurityException: INJECT_EVENTS", 255))

    assert caught.value.code is ErrorCode.DENIED
    assert "USB debugging (Security settings)" in caught.value.message


def test_output_that_is_no_text_becomes_text_that_postgres_can_store() -> None:
    reading = plan_of(action="shell", argv=["getprop"]).read(ShellOutput(b"a\0b\xff", b"", 0))

    assert reading.output["stdout"] == "a\ufffdb\ufffd"


def test_output_that_was_cut_off_says_so() -> None:
    reading = plan_of(action="shell", argv=["getprop"]).read(ShellOutput(b"a", b"", None, truncated=True))

    assert reading.output == {"stdout": "a", "stderr": "", "exit_code": None, "truncated": True}


@pytest.mark.parametrize("action", ["battery", "getprop", "screenshot"])
def test_a_report_that_was_cut_off_is_not_read_as_if_it_were_whole(action: str) -> None:
    with pytest.raises(Permanent) as caught:
        plan_of(action=action).read(ShellOutput(b"  level: 8", b"", None, truncated=True))

    assert caught.value.code is ErrorCode.TRUNCATED


def test_nothing_in_front_is_not_a_failure() -> None:
    reading = plan_of(action="current_app").read(ShellOutput(b"", b"", 1))

    assert reading.output == {"package": None, "activity": None}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"action": "long_press", "x": 1, "y": 2, "duration_ms": 900}, "input swipe 1 2 1 2 900"),
        ({"action": "key", "key": "home"}, "input keyevent KEYCODE_HOME"),
        ({"action": "key", "key": 4}, "input keyevent 4"),
        ({"action": "wake"}, "input keyevent KEYCODE_WAKEUP"),
        ({"action": "stop_app", "package": "com.a.b"}, "am force-stop --user current com.a.b"),
        (
            {"action": "open_url", "url": "https://a.b/?c='d'&e", "package": "f.g"},
            "am start -a android.intent.action.VIEW -d 'https://a.b/?c='\"'\"'d'\"'\"'&e' -p f.g",
        ),
        ({"action": "logcat", "lines": 5}, "logcat -d -t 5"),
        ({"action": "logcat", "lines": 5, "filter": ["A*:I", "b:S"]}, "logcat -d -t 5 'A*:I' b:S '*:S'"),
    ],
    ids=str,
)
def test_an_action_becomes_the_line_that_android_knows(fields: dict[str, object], line: str) -> None:
    assert plan_of(**fields).line == line
    assert plan_of(action="tap", x=1, y=2).read(DONE).output == {}
