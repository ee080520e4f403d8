import json
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts import android_shell
from contracts.android import AndroidExecute, Tap

EVERY_ACTION = [
    {"action": "tap", "x": 10, "y": 20},
    {"action": "swipe", "x1": 1, "y1": 2, "x2": 3, "y2": 4, "duration_ms": 500},
    {"action": "long_press", "x": 10, "y": 20},
    {"action": "key", "key": "HOME"},
    {"action": "text", "text": "hello"},
    {"action": "screenshot"},
    {"action": "getprop", "name": "ro.product.model"},
    {"action": "battery"},
    {"action": "current_app"},
    {"action": "start_app", "package": "com.android.settings", "activity": ".Settings"},
    {"action": "wake"},
    {"action": "status"},
    {"action": "shell", "argv": ["pm", "list", "packages"]},
]


def errors_of(data: object) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        AndroidExecute.model_validate(data)
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]


@pytest.mark.parametrize("fields", EVERY_ACTION, ids=lambda fields: fields["action"])
def test_an_action_survives_the_wire_unchanged(fields: dict[str, object]) -> None:
    payload = AndroidExecute.model_validate(fields | {"device": "SIM1", "timeout_seconds": 5})

    again = AndroidExecute.model_validate_json(payload.model_dump_json())

    assert again == payload
    assert payload.device == "SIM1"
    assert payload.timeout_seconds == 5
    assert payload.root.action == fields["action"]


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("shell getprop ro.product.model", {"action": "getprop", "name": "ro.product.model"}),
        ("shell input tap 10 20", {"action": "tap", "x": 10, "y": 20}),
        ("shell input swipe 1 2 3 4", {"action": "swipe", "x1": 1, "y1": 2, "x2": 3, "y2": 4}),
        ("shell input text 'two words'", {"action": "text", "text": "two words"}),
        ("shell input keyevent KEYCODE_BACK", {"action": "key", "key": "back"}),
        ("shell screencap -p", {"action": "screenshot"}),
        ("adb shell dumpsys  battery", {"action": "battery"}),
        ("shell am start -n com.a.b/.C", {"action": "start_app", "package": "com.a.b", "activity": ".C"}),
        ("shell pm list packages -3", {"action": "shell", "argv": ["pm", "list", "packages", "-3"]}),
    ],
)
def test_a_command_line_and_its_action_have_the_same_canonical_json(line: str, fields: dict[str, object]) -> None:
    from_line = AndroidExecute.model_validate({"command": line, "device": "SIM1"})
    from_fields = AndroidExecute.model_validate(fields | {"device": "SIM1"})

    assert from_line.model_dump_json() == from_fields.model_dump_json()
    assert "command" not in json.loads(from_line.model_dump_json())


def test_a_missing_device_is_left_out_of_the_canonical_json() -> None:
    dumped = AndroidExecute.model_validate({"action": "wake", "device": None}).model_dump()

    assert dumped == {"action": "wake", "timeout_seconds": 30.0}


@pytest.mark.parametrize(
    ("data", "place", "reason"),
    [
        ({"action": "tap", "x": 10}, "tap.y", "Field required"),
        ({"action": "tap", "x": 10, "y": "20"}, "tap.y", "valid integer"),
        ({"action": "tap", "x": True, "y": 20}, "tap.x", "valid integer"),
        ({"action": "tap", "x": 10, "y": -1}, "tap.y", "greater than or equal to 0"),
        ({"action": "tap", "x": 10, "y": 20, "z": 30}, "tap.z", "Extra inputs"),
        ({"action": "wake", "timeout_seconds": 301}, "wake.timeout_seconds", "less than or equal to 300"),
        ({"action": "wake", "timeout_seconds": 0}, "wake.timeout_seconds", "greater than 0"),
        ({"action": "wake", "device": "a b"}, "wake.device", "match pattern"),
        ({"action": "text", "text": "a\0b"}, "text.text", "NUL"),
        ({"action": "text", "text": ""}, "text.text", "at least 1 character"),
        ({"action": "start_app", "package": "com.a;reboot"}, "start_app.package", "match pattern"),
        ({"action": "fly"}, "", "'fly' found using 'action'"),
        ({}, "", "'action'"),
        ({"command": "shell getprop a", "action": "wake"}, "action", "Extra inputs"),
        ({"command": "shell getprop a", "device": "a b"}, "device", "match pattern"),
        ({"command": 7}, "command", "valid string"),
        ({"command": "devices"}, "command", "shell <program>"),
        ({"command": "shell input tap 99999 1"}, "command.tap.x", "less than or equal to"),
    ],
)
def test_a_bad_payload_names_the_field(data: object, place: str, reason: str) -> None:
    [(found_place, message)] = errors_of(data)

    assert found_place == place
    assert reason in message


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", "id"],
        ["su"],
        ["reboot"],
        ["rm", "-rf", "/sdcard"],
        ["settings", "put", "global", "adb_enabled", "0"],
        ["dumpsys", "battery", "set", "level", "5"],
        ["wm", "size", "100x100"],
        ["pm", "uninstall", "com.a.b"],
        ["cat", "/data/data/com.a.b/secret"],
        ["am", "broadcast", "-a", "x"],
        ["getprop", "-Z"],
        ["echo", "$(id)"],
        ["echo", "a;b"],
        ["echo", "a\nb"],
        ["echo", "a'b"],
        ["getprop", "a", "b"],
        ["ECHO"],
        [""],
    ],
)
def test_what_is_not_on_the_allow_list_is_refused(argv: list[str]) -> None:
    [(place, message)] = errors_of({"action": "shell", "argv": argv})

    assert place == "shell.argv"
    assert "allow" in message


@pytest.mark.parametrize(
    "line",
    [
        "shell input text a;reboot",
        "shell echo a && reboot",
        "shell echo `id`",
        'shell echo "$(id)"',
        "shell getprop a\nreboot",
        "shell echo 'open",
        "shell echo a > /sdcard/x",
        "shell getprop a\\ b",
        "shell echo *",
    ],
)
def test_a_line_that_a_shell_would_act_on_is_refused(line: str) -> None:
    [(place, message)] = errors_of({"command": line})

    assert place == "command"
    assert "must stand inside single quotes" in message


@pytest.mark.parametrize(
    ("fields", "repeatable"),
    [
        *((fields, False) for fields in EVERY_ACTION[:5]),
        *((fields, True) for fields in EVERY_ACTION[5:]),
        ({"action": "shell", "argv": ["input", "tap", "1", "2"]}, False),
        ({"action": "shell", "argv": ["am", "force-stop", "com.a.b"]}, False),
        ({"action": "shell", "argv": ["getprop"]}, True),
    ],
    ids=str,
)
def test_only_what_may_run_twice_is_repeatable(fields: dict[str, object], *, repeatable: bool) -> None:
    assert AndroidExecute.model_validate(fields).repeatable is repeatable


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), min_size=1, max_size=5))
def test_a_line_quoted_for_a_shell_splits_into_the_words_it_was_made_of(words: list[str]) -> None:
    assert android_shell.split(shlex.join(words)) == tuple(words)


@settings(deadline=None)
@given(st.text())
def test_no_line_does_more_than_it_says(line: str) -> None:
    try:
        payload = AndroidExecute.model_validate({"command": f"shell {line}"})
    except ValidationError:
        return

    assert payload.root.action != "shell" or not android_shell.METACHARACTERS.intersection(*payload.root.argv)


def test_the_schema_shows_both_forms() -> None:
    schema = AndroidExecute.model_json_schema()

    actions, line = schema["anyOf"]
    assert len(actions["oneOf"]) == len(EVERY_ACTION)
    assert actions["discriminator"]["propertyName"] == "action"
    assert line["required"] == ["command"]


def test_an_action_can_be_given_as_an_object() -> None:
    action = Tap(action="tap", x=1, y=2)

    assert AndroidExecute(action).root is action
