import json
import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts import android_shell
from contracts.android import AndroidExecute
from contracts.android_actions import MAX_BATCH_ACTIONS
from contracts.android_screen_actions import Tap

SHA256 = "0" * 64
EFFECTS: list[dict[str, Any]] = [
    {"action": "tap", "x": 10, "y": 20},
    {"action": "swipe", "x1": 1, "y1": 2, "x2": 3, "y2": 4, "duration_ms": 500},
    {"action": "long_press", "x": 10, "y": 20},
    {"action": "key", "key": "HOME"},
    {"action": "text", "text": "hello"},
    {"action": "tap_on", "selector": {"text": "OK", "index": 1}},
    {"action": "install", "path": "/sdcard/a.apk", "replace": False},
    {"action": "shell", "argv": ["input", "tap", "1", "2"]},
    {"action": "flow", "name": "perplexity.ask", "inputs": {"question": "Why?"}},
    {"action": "batch", "actions": [{"action": "wake"}, {"action": "tap", "x": 1, "y": 2}]},
]
REPEATABLE: list[dict[str, Any]] = [
    {"action": "clear_text"},
    {"action": "find", "selector": {"id": "com.a.b:id/c", "clickable": True}},
    {"action": "wait_for", "selector": {"description_contains": "done"}, "gone": True},
    {"action": "ui_dump"},
    {"action": "screenshot"},
    {"action": "record", "seconds": 180},
    {"action": "getprop", "name": "ro.product.model"},
    {"action": "battery"},
    {"action": "current_app"},
    {"action": "status"},
    {"action": "logcat", "lines": 10, "filter": ["ActivityManager:I", "*:S"]},
    {"action": "list_packages", "kind": "third_party"},
    {"action": "start_app", "package": "com.android.settings", "activity": ".Settings"},
    {"action": "stop_app", "package": "com.android.settings"},
    {"action": "install", "artifact": SHA256},
    {"action": "uninstall", "package": "com.a.b"},
    {"action": "push", "path": "/sdcard/a b.txt", "content_base64": "eA=="},
    {"action": "pull", "path": "/data/local/tmp/x"},
    {"action": "wake"},
    {"action": "shell", "argv": ["pm", "list", "packages"]},
    {"action": "batch", "actions": [{"action": "wake"}, {"action": "screenshot"}]},
]
EVERY_ACTION = EFFECTS + REPEATABLE


def errors_of(data: object) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        AndroidExecute.model_validate(data)
    return [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]


@pytest.mark.parametrize("fields", EVERY_ACTION, ids=lambda fields: str(fields["action"]))
def test_an_action_survives_the_wire_unchanged(fields: dict[str, object]) -> None:
    payload = AndroidExecute.model_validate(fields | {"device": "SIM1", "timeout_seconds": 200})

    again = AndroidExecute.model_validate_json(payload.model_dump_json())

    assert again == payload
    assert payload.device == "SIM1"
    assert payload.timeout_seconds == 200
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
        ("shell am force-stop com.a.b", {"action": "stop_app", "package": "com.a.b"}),
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
        ({"action": "wake", "device": "A", "tag": "b"}, "wake", "either device or tag"),
        ({"command": "shell getprop a", "device": "A", "tag": "b"}, "", "either device or tag"),
        ({"action": "wake", "tag": "A B"}, "wake.tag", "match pattern"),
        ({"action": "find", "selector": {}}, "find.selector", "at least one"),
        ({"action": "find", "selector": {"index": 0}}, "find.selector", "at least one"),
        ({"action": "find", "selector": {"xpath": "//a"}}, "find.selector.xpath", "Extra inputs"),
        ({"action": "find"}, "find.selector", "Field required"),
        ({"action": "record", "seconds": 181}, "record.seconds", "less than or equal to 180"),
        ({"action": "record", "seconds": 60, "timeout_seconds": 60}, "record", "at least seconds + 15"),
        ({"action": "push", "path": "/sdcard/a"}, "push", "either content_base64 or artifact"),
        ({"action": "push", "path": "/sdcard/a", "content_base64": "x"}, "push.content_base64", "base64"),
        ({"action": "push", "path": "/etc/hosts", "artifact": SHA256}, "push.path", "/sdcard/"),
        ({"action": "push", "path": "/sdcard/../etc/hosts", "artifact": SHA256}, "push.path", ".."),
        ({"action": "push", "path": "/sdcard/", "artifact": SHA256}, "push.path", "name a file"),
        ({"action": "push", "path": "/data/local/tmp/ish.fence", "artifact": SHA256}, "push.path", "kept for"),
        ({"action": "pull", "path": "/sdcard/a\0b"}, "pull.path", "NUL"),
        ({"action": "pull", "path": "/sdcard/a\nb"}, "pull.path", "control characters"),
        ({"action": "pull", "path": "/sdcard/" + "é" * 500}, "pull.path", "1000 bytes"),
        ({"action": "install"}, "install", "either artifact or path"),
        ({"action": "install", "artifact": "A" * 64}, "install.artifact", "match pattern"),
        ({"action": "logcat", "lines": 0}, "logcat.lines", "greater than or equal to 1"),
        ({"action": "logcat", "filter": ["a b:I"]}, "logcat.filter.0", "match pattern"),
        ({"action": "flow", "name": "../x.y"}, "flow.name", "match pattern"),
        ({"action": "flow", "name": "a.b", "inputs": {"x": ""}}, "flow.inputs.x", "at least 1 character"),
        ({"action": "batch", "actions": []}, "batch", "at least one"),
        (
            {"action": "batch", "actions": [{"action": "wake"}] * (MAX_BATCH_ACTIONS + 1)},
            "batch.actions",
            "at most 100",
        ),
        ({"action": "batch", "actions": [{"action": "batch", "actions": []}]}, "batch.actions.0", "'batch' found"),
        ({"action": "batch", "actions": [{"action": "wake", "device": "A"}]}, "batch", "stand on the batch"),
        ({"action": "batch", "actions": [{"action": "tap", "x": 1}]}, "batch.actions.0.tap.y", "Field required"),
        ({"action": "shell", "argv": ["echo", *["x" * 4000] * 9]}, "shell.argv", "32768 bytes"),
        ({"action": "shell", "argv": ["id"], "max_output_bytes": 0}, "shell.max_output_bytes", "greater than"),
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
        [],
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
        *((fields, False) for fields in EFFECTS),
        *((fields, True) for fields in REPEATABLE),
        ({"action": "shell", "argv": ["am", "force-stop", "com.a.b"]}, False),
    ],
    ids=str,
)
def test_only_what_may_run_twice_is_repeatable(fields: dict[str, object], *, repeatable: bool) -> None:
    assert AndroidExecute.model_validate(fields).repeatable is repeatable


def test_a_record_has_the_time_that_it_needs() -> None:
    for seconds in (1, 180):
        payload = AndroidExecute.model_validate({"action": "record", "seconds": seconds})
        assert payload.timeout_seconds > seconds


@settings(deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1, max_size=5
    )
)
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
    assert len(actions["oneOf"]) == len({fields["action"] for fields in EVERY_ACTION})
    assert actions["discriminator"]["propertyName"] == "action"
    assert line["required"] == ["command"]


def test_an_action_can_be_given_as_an_object() -> None:
    action = Tap(action="tap", x=1, y=2)

    assert AndroidExecute(action).root is action
