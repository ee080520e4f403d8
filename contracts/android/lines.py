"""Reads a line as one would give it to `adb`: `adb -s SERIAL shell input tap 10 20` becomes the fields of an action."""

import re
from typing import Any

from contracts.android import hints, keys, shell
from contracts.android.intents import Denied

_FORM = "a command is `shell <program> <arguments>`"
_SHELLS = ("shell", "exec-out")
_SHELL_FLAGS = frozenset({"-T", "-t", "-tt", "-n", "-x"})
"""Of `adb shell`: about terminals and input, of which there are none here."""
_SOURCES = frozenset({"touchscreen", "keyboard"})
"""Those that `input` takes by itself for what follows."""
_VIEW = "android.intent.action.VIEW"

_TYPED_ACTIONS = {
    "input tap <x> <y>": "tap",
    "input swipe <x1> <y1> <x2> <y2>": "swipe",
    "input swipe <x1> <y1> <x2> <y2> <duration_ms>": "swipe",
    "input text <text>": "text",
    "input keyevent <key>": "key",
    "screencap -p": "screenshot",
    "getprop": "getprop",
    "getprop <name>": "getprop",
    "dumpsys battery": "battery",
    "am start -n <package>/<activity>": "start_app",
    f"am start -a {_VIEW} -d <url>": "open_url",
    f"am start -a {_VIEW} -d <url> -p <package>": "open_url",
    f"am start -a {_VIEW} -p <package> -d <url>": "open_url",
    f"am start -d <url> -a {_VIEW}": "open_url",
    "monkey -p <package> -c android.intent.category.LAUNCHER 1": "start_app",
    "monkey -p <package> 1": "start_app",
    "am force-stop <package>": "stop_app",
}
_NUMERIC_FIELDS = frozenset({"x", "y", "x1", "y1", "x2", "y2", "duration_ms"})


def fields_from_line(line: str) -> dict[str, Any]:
    """The fields of the action that a line as given to `adb` stands for; not yet validated.

    Args:
        line: `shell <program> <arguments>`, or `exec-out` in its place; `adb` and `-s SERIAL` may stand before it.

    Raises:
        Denied: It is no such line, or cannot be split safely; the message names the action that does the same, where there
            is one.
    """
    words = _split(line)
    device, words = _without_options(words[1:] if words[:1] == ("adb",) else words)
    if not words or words[0] not in _SHELLS:
        command = words[0] if words else ""
        raise Denied(f"{command[:64]!r} is no line for a phone{hints.instead_of_command(command)}; {_FORM}")
    argv = _without_flags(words[1:])
    if len(argv) == 1 and " " in argv[0]:
        argv = _split(argv[0])  # the phone's shell takes all of it as its line
    if not argv:
        raise Denied(f"a shell that stays open is not to be had; {_FORM}")
    target = {} if device is None else {"device": device}
    return {**_action(_without_source(argv)), **target}


def _split(line: str) -> tuple[str, ...]:
    try:
        return shell.split(line)
    except Denied as denied:
        raise Denied(f"{denied}{_instead_of(line)}") from None


def _without_options(words: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The phone that adb's own options name, and the words after them."""
    device = None
    while words and words[0].startswith("-"):
        if words[0] != "-s" or len(words) == 1:
            sentence = f"adb's option {words[0][:64]!r} is not understood; name the phone by -s SERIAL or by `device`"
            raise Denied(f"{sentence}; {_FORM}")
        device, words = words[1], words[2:]
    return device, words


def _without_flags(words: tuple[str, ...]) -> tuple[str, ...]:
    while words and words[0] in _SHELL_FLAGS:
        words = words[1:]
    return words


def _without_source(argv: tuple[str, ...]) -> tuple[str, ...]:
    return ("input", *argv[2:]) if argv[0] == "input" and len(argv) > 1 and argv[1] in _SOURCES else argv


def _action(argv: tuple[str, ...]) -> dict[str, Any]:
    for template, action in _TYPED_ACTIONS.items():
        fields = _match(template, argv)
        if fields is not None:
            if action == "text":
                # as Android's `input text` reads it; the action types a `%s` as it is
                fields["text"] = fields["text"].replace("%s", " ")
            return {"action": action, **fields}
    if argv[:2] == ("input", "keyevent"):
        argv = (*argv[:2], *(_key(argument) for argument in argv[2:]))
    return {"action": "shell", "argv": argv}


def _key(argument: str) -> str:
    return argument if argument.startswith("-") else keys.argument(keys.one_spelling(argument))


def _match(template: str, argv: tuple[str, ...]) -> dict[str, Any] | None:
    patterns = template.split()
    if len(patterns) != len(argv):
        return None
    fields: dict[str, Any] = {}
    for pattern, word in zip(patterns, argv, strict=True):
        expression = re.sub(r"<(\w+)>", r"(?P<\1>.*)", re.sub(r"\.", r"\\.", pattern))
        match = re.fullmatch(expression, word, re.DOTALL)
        if match is None:
            return None
        fields.update(match.groupdict())
    return {
        name: int(value) if name in _NUMERIC_FIELDS and re.fullmatch(r"[0-9]{1,9}", value) else value
        for name, value in fields.items()
    }


def _instead_of(line: str) -> str:
    """The action for a line that cannot be split: what its first words ask for."""
    words = line.replace("'", " ").replace('"', " ").split()
    while words and (words[0] == "adb" or words[0] in _SHELLS or words[0].startswith("-")):
        words = words[2:] if words[0] == "-s" else words[1:]
    return hints.instead_of(words) or hints.instead_of_command(words[0] if words else "")
