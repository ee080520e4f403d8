import json
import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.android import shell
from contracts.android.actions import MAX_BATCH_ACTIONS
from contracts.android.command import AndroidExecute
from contracts.android.screen_actions import Tap

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
    {"action": "open_url", "url": "https://example.org/?a=1&b=2#c", "package": "com.ish.browser"},
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
        ("shell input text hello%sworld", {"action": "text", "text": "hello world"}),
        ("shell input keyevent 4", {"action": "key", "key": 4}),
        ("shell input keyevent KEYCODE_7", {"action": "key", "key": "14"}),
        ("shell input touchscreen tap 10 20", {"action": "tap", "x": 10, "y": 20}),
        (
            "adb shell input keyevent 4 home KEYCODE_ENTER",
            {"action": "shell", "argv": ["input", "keyevent", "4", "KEYCODE_HOME", "KEYCODE_ENTER"]},
        ),
        (
            "shell input keyevent --longpress POWER",
            {"action": "shell", "argv": ["input", "keyevent", "--longpress", "KEYCODE_POWER"]},
        ),
        ("adb exec-out screencap -p", {"action": "screenshot"}),
        ("adb shell -T getprop", {"action": "getprop"}),
        ("adb shell 'input tap 10 20'", {"action": "tap", "x": 10, "y": 20}),
        ('adb shell "input text hello%sworld"', {"action": "text", "text": "hello world"}),
        ("shell am start -n 'com.a.b/.C$D'", {"action": "start_app", "package": "com.a.b", "activity": ".C$D"}),
        ("shell monkey -p com.a.b 1", {"action": "start_app", "package": "com.a.b"}),
        (
            "shell am start -a android.intent.action.VIEW -d 'https://a.b/?c=1&d=2'",
            {"action": "open_url", "url": "https://a.b/?c=1&d=2"},
        ),
        (
            "shell am start -a android.intent.action.VIEW -d https://a.b/ -p com.c.d",
            {"action": "open_url", "url": "https://a.b/", "package": "com.c.d"},
        ),
        (
            "shell am start -W -a android.intent.action.VIEW -d app://page --es name some-text --ez flag true --ei n 5",
            {
                "action": "shell",
                "argv": [
                    "am",
                    "start",
                    "-W",
                    "-a",
                    "android.intent.action.VIEW",
                    "-d",
                    "app://page",
                    "--es",
                    "name",
                    "some-text",
                    "--ez",
                    "flag",
                    "true",
                    "--ei",
                    "n",
                    "5",
                ],
            },
        ),
        (
            "shell am start -a android.settings.WIFI_SETTINGS",
            {"action": "shell", "argv": ["am", "start", "-a", "android.settings.WIFI_SETTINGS"]},
        ),
    ],
)
def test_a_command_line_and_its_action_have_the_same_canonical_json(line: str, fields: dict[str, object]) -> None:
    from_line = AndroidExecute.model_validate({"command": line, "device": "SIM1"})
    from_fields = AndroidExecute.model_validate(fields | {"device": "SIM1"})

    assert from_line.model_dump_json() == from_fields.model_dump_json()
    assert "command" not in json.loads(from_line.model_dump_json())


def test_a_line_may_name_its_phone_as_adb_does() -> None:
    for data in (
        {"command": "adb -s SIM1 shell input tap 1 2"},
        {"command": "-s SIM1 shell input tap 1 2", "device": "SIM1"},
    ):
        assert AndroidExecute.model_validate(data) == AndroidExecute(Tap(action="tap", x=1, y=2, device="SIM1"))


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
        ({"action": "wake", "device": "a/b"}, "wake.device", "match pattern"),
        ({"action": "text", "text": "a\0b"}, "text.text", "NUL"),
        ({"action": "text", "text": ""}, "text.text", "at least 1 character"),
        ({"action": "start_app", "package": "com.a;reboot"}, "start_app.package", "match pattern"),
        ({"action": "fly"}, "", "'fly' found using 'action'"),
        ({}, "", "action: is required, as one of batch"),
        ({"command": "shell getprop a", "action": "wake"}, "action", "Extra inputs"),
        ({"command": "shell getprop a", "device": "a b "}, "device", "match pattern"),
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
        ({"action": "install"}, "install", "either artifact or artifacts or path"),
        ({"action": "install", "artifact": SHA256, "artifacts": [SHA256]}, "install", "either artifact or artifacts"),
        ({"action": "install", "artifacts": [SHA256, SHA256]}, "install", "named twice"),
        ({"action": "install", "artifacts": []}, "install.artifacts", "at least 1 item"),
        ({"action": "install", "artifact": "A" * 64}, "install.artifact", "match pattern"),
        ({"action": "logcat", "lines": 0}, "logcat.lines", "greater than or equal to 1"),
        ({"action": "logcat", "filter": ["a b:I"]}, "logcat.filter.0", "match pattern"),
        ({"action": "logcat", "filter": ["-f/data/local/tmp/x:V"]}, "logcat.filter.0", "match pattern"),
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
        ({"command": "adb -s A shell id", "device": "B"}, "", "give one of them"),
        ({"command": "adb -s A shell id", "tag": "b"}, "", "either device or tag"),
        ({"command": "adb -s 'a*b' shell id"}, "command.shell.device", "match pattern"),
        ({"command": "adb -d shell id"}, "command", "name the phone by -s SERIAL"),
        ({"command": "shell"}, "command", "shell <program>"),
        ({"action": "key", "key": "NOPE"}, "key.key", "'NOPE' is no key of Android"),
        ({"action": "key", "key": "HOEM"}, "key.key", "did you mean HOME?"),
        ({"action": "key", "key": 338}, "key.key", "a number from 0 to 337"),
        ({"action": "key", "key": "-1"}, "key.key", "is no key"),
        ({"action": "key", "key": True}, "key.key", "valid string"),
        ({"command": "shell input keyevent NOPE"}, "command.key.key", "'NOPE' is no key of Android"),
        ({"command": "shell input keyevent HOME NOPE"}, "command", "'NOPE' is no key of Android"),
        ({"action": "shell", "argv": ["input", "keyevent", "NOPE"]}, "shell.argv", "'NOPE' is no key of Android"),
        ({"action": "shell", "argv": ["input", "keyevent", "home"]}, "shell.argv", "only as KEYCODE_HOME"),
        ({"action": "open_url", "url": "example.org"}, "open_url.url", "with its scheme"),
        ({"action": "open_url", "url": "javascript:alert(1)"}, "open_url.url", "'javascript'"),
        ({"action": "open_url", "url": "file:///sdcard/a"}, "open_url.url", "'file'"),
        ({"action": "open_url", "url": "https://a b"}, "open_url.url", "with its scheme"),
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
    ("line", "action"),
    [
        ("shell screencap /sdcard/a.png", "screenshot"),
        ("adb exec-out screencap -p > a.png", "screenshot"),
        ("pull /sdcard/a.txt", "pull"),
        ("adb pull /sdcard/a.txt .", "pull"),
        ("shell cat /sdcard/a.txt", "pull"),
        ("push a.txt /sdcard/a.txt", "push"),
        ("logcat -d", "logcat"),
        ("adb shell logcat -d | grep x", "logcat"),
        ("adb shell 'logcat -d | grep x'", "logcat"),
        ("adb shell dumpsys window | grep mCurrentFocus", "current_app"),
        ("shell uiautomator dump /sdcard/a.xml", "ui_dump"),
        ("adb -s A shell uiautomator dump && adb pull /sdcard/window_dump.xml", "ui_dump"),
        ("install a.apk", "install"),
        ("shell pm install /sdcard/a.apk", "install"),
        ("uninstall com.a.b", "uninstall"),
        ("shell pm uninstall com.a.b", "uninstall"),
        ("shell screenrecord /sdcard/a.mp4", "record"),
        ("shell monkey -p com.a.b -v 500", "start_app"),
        ("shell am start com.a.b/.C", "start_app"),
        ("shell am force-stop --user 0 com.a.b", "stop_app"),
        ("shell input text two words", "text"),
        ("shell cmd package list packages", "list_packages"),
        ("shell dumpsys activity top x", "current_app"),
    ],
)
def test_a_refused_line_names_the_action_that_does_it(line: str, action: str) -> None:
    [(_, message)] = errors_of({"command": line})

    example = json.loads(message[message.index("{") : message.index("}") + 1])
    assert f"use the action {action}: " in message
    assert example.pop("action") == action
    if "artifact" in example:
        example["artifact"] = SHA256
    assert AndroidExecute.model_validate({"action": action, **example}).root.action == action


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("-a android.intent.action.CALL -d tel:1", "android.intent.action.CALL"),
        ("-a android.intent.action.MASTER_CLEAR", "MASTER_CLEAR"),
        ("-a android.intent.action.VIEW -d file:///sdcard/a", "for -d"),
        ("-a android.intent.action.VIEW -d intent:x -W", "for -d"),
        ("-n com.a.b/.C --es key -f", "for --es"),
        ("-n com.a.b/.C --grant-read-uri-permission", "--grant-read-uri-permission"),
        ("-n com.a.b/.C --es -x y", "for --es"),
        ("-D -n com.a.b/.C", "'-D'"),
        ("-W", "what to start"),
        ("-n", "'-n'"),
    ],
)
def test_a_start_that_asks_for_more_than_a_page_is_refused(words: str, named: str) -> None:
    [(_, message)] = errors_of({"action": "shell", "argv": ["am", "start", *words.split()]})

    assert named in message
    assert "am start takes" in message


OPTIONS = ["-f/data/local/tmp/x:V", "-n", "--user", "--", "-", "-1", "-rf", "--es"]
FREE_TEXTS = {
    *("text.text", "flow.inputs.question", "tap_on.selector.text", "find.selector.id"),
    "wait_for.selector.description_contains",
}
"""Those that may begin with a hyphen: typed as they are, or compared with what is on the screen."""


def places_of_strings(value: object, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, str):
        return [place]
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for name, member in members for found in places_of_strings(member, (*place, name))]


def replaced(value: Any, place: tuple[str | int, ...], new: str) -> Any:
    if not place:
        return new
    copy = value.copy()
    copy[place[0]] = replaced(value[place[0]], place[1:], new)
    return copy


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("fields", EVERY_ACTION, ids=lambda fields: str(fields["action"]))
def test_no_value_of_any_action_can_be_taken_for_an_option(fields: dict[str, Any], option: str) -> None:
    taken = set()
    for place in places_of_strings(fields):
        try:
            AndroidExecute.model_validate(replaced(fields, place, option))
        except ValidationError:
            continue
        taken.add(".".join(map(str, (fields["action"], *place))))

    assert taken <= FREE_TEXTS


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("fields", EVERY_ACTION, ids=lambda fields: str(fields["action"]))
def test_no_field_of_any_action_given_or_not_can_be_taken_for_an_option(fields: dict[str, Any], option: str) -> None:
    action = type(AndroidExecute.model_validate(fields).root)
    taken = set()
    for name in action.model_fields:
        for value in (option, [option], {"text": option}, {"question": option}):
            try:
                action.model_validate({**fields, name: value})
            except ValidationError as error:
                if any(one["loc"][:1] == (name,) for one in error.errors()):
                    continue
            taken.add(f"{fields['action']}.{name}")

    assert taken <= {"text.text", "flow.inputs", "tap_on.selector", "find.selector", "wait_for.selector"}


@pytest.mark.parametrize("usage", shell.usages())
@pytest.mark.parametrize("option", ["-n", "-e", "--user", "-f/data/local/tmp/x:V"])
def test_no_argument_of_an_allowed_program_can_be_taken_for_an_option(usage: str, option: str) -> None:
    examples = {"NUMBER": "1", "PACKAGE": "com.a.b", "COMPONENT": "com.a.b/.C", "KEY": "HOME", "WORD": "a", "NAME": "a"}
    words = [word.removesuffix("...").partition("|")[0] for word in usage.split()]
    argv = [examples.get(word, "-3" if word == "FLAG" else "a" if word == "TEXT" else word) for word in words]
    assert shell.check(tuple(argv)) in (True, False)

    for place, word in enumerate(words):
        if word not in examples or (word == "WORD" and len(option) > 2) or ("FLAG" in words and len(option) == 2):
            continue
        with pytest.raises(ValueError, match="allow"):
            shell.check((*argv[:place], option, *argv[place + 1 :]))


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
    assert shell.split(shlex.join(words)) == tuple(words)


@settings(deadline=None)
@given(st.text())
def test_no_line_does_more_than_it_says(line: str) -> None:
    try:
        payload = AndroidExecute.model_validate({"command": f"shell {line}"})
    except ValidationError:
        return

    assert payload.root.action != "shell" or not shell.METACHARACTERS.intersection(*payload.root.argv)


def test_the_schema_shows_both_forms() -> None:
    schema = AndroidExecute.model_json_schema()

    actions, line = schema["anyOf"]
    assert len(actions["oneOf"]) == len({fields["action"] for fields in EVERY_ACTION})
    assert actions["discriminator"]["propertyName"] == "action"
    assert line["required"] == ["command"]


def test_an_action_can_be_given_as_an_object() -> None:
    action = Tap(action="tap", x=1, y=2)

    assert AndroidExecute(action).root is action
