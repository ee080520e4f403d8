"""Which action does what a refused command line asks for: said in the refusal, with an example to copy."""

import json
from collections.abc import Sequence
from typing import Any

_SHA256 = "<sha256 of your artifact>"
_EXAMPLES: dict[str, dict[str, Any]] = {
    "current_app": {},
    "install": {"artifact": _SHA256},
    "key": {"key": "HOME"},
    "list_packages": {"kind": "third_party"},
    "logcat": {"lines": 200, "filter": ["ActivityManager:I"]},
    "open_url": {"url": "https://example.org/"},
    "pull": {"path": "/sdcard/Download/a.txt"},
    "push": {"path": "/sdcard/Download/a.txt", "artifact": _SHA256},
    "record": {"seconds": 10},
    "screenshot": {},
    "start_app": {"package": "com.example.app"},
    "status": {},
    "stop_app": {"package": "com.example.app"},
    "swipe": {"x1": 300, "y1": 900, "x2": 300, "y2": 300},
    "tap": {"x": 300, "y": 900},
    "text": {"text": "two words"},
    "ui_dump": {},
    "uninstall": {"package": "com.example.app"},
    "getprop": {"name": "ro.product.model"},
    "long_press": {"x": 300, "y": 900},
    "battery": {},
}

_PROGRAMS = {
    "am force-stop": "stop_app",
    "am kill": "stop_app",
    "am monitor": "current_app",
    "am stack": "current_app",
    "am start": "start_app",
    "am start-activity": "start_app",
    "am start -a": "open_url",
    "am start -d": "open_url",
    "cat": "pull",
    "cmd activity": "start_app",
    "cmd package install": "install",
    "cmd package list": "list_packages",
    "cmd package uninstall": "uninstall",
    "cmd package resolve-activity": "start_app",
    "dumpsys activity": "current_app",
    "dumpsys battery": "battery",
    "dumpsys window": "current_app",
    "getprop": "getprop",
    "input draganddrop": "swipe",
    "input keycombination": "key",
    "input keyevent": "key",
    "input press": "key",
    "input roll": "swipe",
    "input swipe": "swipe",
    "input tap": "tap",
    "input text": "text",
    "logcat": "logcat",
    "monkey": "start_app",
    "pm install": "install",
    "pm install-create": "install",
    "pm install-write": "install",
    "pm list": "list_packages",
    "pm path": "list_packages",
    "pm uninstall": "uninstall",
    "screencap": "screenshot",
    "screenrecord": "record",
    "uiautomator": "ui_dump",
}
"""The action by the first words of a program's line; the most words that fit count."""
_COMMANDS = {
    "get-serialno": "getprop",
    "get-state": "status",
    "install": "install",
    "install-multi-package": "install",
    "install-multiple": "install",
    "logcat": "logcat",
    "pull": "pull",
    "push": "push",
    "sync": "push",
    "uninstall": "uninstall",
}
"""The same for adb's own commands."""
_MOST_WORDS = 3


def instead_of(argv: Sequence[str]) -> str:
    """The end of a refusal: the action that does what a program's line asks for.

    Args:
        argv: The program and its arguments.

    Returns:
        Empty when there is no such action.
    """
    for count in range(min(_MOST_WORDS, len(argv)), 0, -1):
        action = _PROGRAMS.get(" ".join(argv[:count]))
        if action is not None:
            return _use(action)
    return ""


def instead_of_command(command: str) -> str:
    """The same for one of adb's own commands, such as `push`."""
    if command == "devices":
        return "; the phones are listed by GET /api/android/status and by `ish devices list`"
    action = _COMMANDS.get(command)
    return "" if action is None else _use(action)


def _use(action: str) -> str:
    return f"; use the action {action}: {json.dumps({'action': action, **_EXAMPLES[action]})}"
