"""Which command lines a phone may be given: how a line is split, the allow-list, and the action a line stands for.

The list is written the way a manual page writes usage, because that is also how a refusal quotes it:

    getprop NAME            NAME is a placeholder, see _PLACEHOLDERS
    settings get system|secure|global NAME      one of
    echo WORD...            any number of, none too
"""

import re
from dataclasses import dataclass
from typing import Any

METACHARACTERS = frozenset(";|&$`<>(){}[]*?~#!\\'\"\n\r\0")
"""What a shell might act on. None may stand in an argument of a free command, quoted or not."""

_PLACEHOLDERS = {
    "NAME": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}"),
    "NUMBER": re.compile(r"[0-9]{1,5}"),
    "PACKAGE": re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+"),
    "COMPONENT": re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+/\.?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*"),
    "FLAG": re.compile(r"-[a-zA-Z0-9]"),
    "WORD": re.compile(r"[^\n\r\0]*"),
}

_READS = """
    cat /proc/cpuinfo|/proc/loadavg|/proc/meminfo|/proc/uptime|/proc/version
    date
    df
    dumpsys activity activities|recents|services|top
    dumpsys battery|cpuinfo|display|input|power|wifi
    dumpsys meminfo PACKAGE
    dumpsys package PACKAGE
    dumpsys window
    dumpsys window displays|policy|windows
    echo WORD...
    false
    getprop
    getprop NAME
    id
    pidof PACKAGE
    pm list features|packages|users FLAG...
    pm path PACKAGE
    settings get system|secure|global NAME
    true
    uptime
    whoami
    wm density|size
"""

_WRITES = """
    am force-stop PACKAGE
    am start -n COMPONENT
    input keyevent NAME
    input swipe NUMBER NUMBER NUMBER NUMBER
    input swipe NUMBER NUMBER NUMBER NUMBER NUMBER
    input tap NUMBER NUMBER
    input text WORD
    monkey -p PACKAGE -c android.intent.category.LAUNCHER 1
"""


class Denied(ValueError):
    """The command line is not one a phone may be given; the message names the rule it breaks."""


@dataclass(frozen=True, slots=True)
class _Usage:
    text: str
    read_only: bool

    def admits(self, argv: tuple[str, ...]) -> bool:
        words = self.text.split()
        if words[-1].endswith("..."):
            fixed, repeated = words[:-1], words[-1].removesuffix("...")
            if len(argv) < len(fixed) or not all(_fits(repeated, argument) for argument in argv[len(fixed) :]):
                return False
            argv = argv[: len(fixed)]
            words = fixed
        return len(words) == len(argv) and all(map(_fits, words, argv))


def _fits(word: str, argument: str) -> bool:
    placeholder = _PLACEHOLDERS.get(word)
    return placeholder.fullmatch(argument) is not None if placeholder else argument in word.split("|")


def _usages() -> dict[str, list[_Usage]]:
    by_program: dict[str, list[_Usage]] = {}
    for table, read_only in ((_READS, True), (_WRITES, False)):
        for line in table.strip().splitlines():
            by_program.setdefault(line.split()[0], []).append(_Usage(line.strip(), read_only))
    return by_program


_ALLOWED = _usages()


def check(argv: tuple[str, ...]) -> bool:
    """Whether an allowed argument list only reads, so that running it twice does no harm.

    Args:
        argv: The program's name and its arguments; never given to a shell unquoted.

    Raises:
        Denied: It is not on the allow-list, or an argument holds a character a shell might act on.
    """
    for position, argument in enumerate(argv):
        if found := METACHARACTERS.intersection(argument):
            raise Denied(f"argv[{position}] holds the shell metacharacter {min(found)!r}; none is allowed")
    program = argv[0] if argv else ""
    usages = _ALLOWED.get(program)
    if usages is None:
        raise Denied(f"{program!r} is not on the allow-list; allowed are {', '.join(sorted(_ALLOWED))}")
    for usage in usages:
        if usage.admits(argv):
            return usage.read_only
    raise Denied(
        f"these arguments of {program!r} are not on the allow-list; allowed: {'; '.join(u.text for u in usages)}"
    )


_WORD = re.compile(r"""(?:[^ \t'"\\;|&$`<>(){}\[\]*?~#!\n\r\0]|'[^'\0]*'|"[^"$`\\\0]*")+""")
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")


def split(line: str) -> tuple[str, ...]:
    """The words of a command line, with quotes taken off as a shell would.

    Raises:
        Denied: A character that a shell would act on stands outside quotes, or a quote is left open.
    """
    words = []
    position = 0
    while position < len(line):
        if line[position] in " \t":
            position += 1
            continue
        match = _WORD.match(line, position)
        if match is None:
            raise Denied(f"the character {line[position]!r} at position {position} must stand inside single quotes")
        words.append(_QUOTED.sub(lambda quoted: quoted[1] or quoted[2] or "", match[0]))
        position = match.end()
    return tuple(words)


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
    "monkey -p <package> -c android.intent.category.LAUNCHER 1": "start_app",
    "am force-stop <package>": "stop_app",
}
_NUMERIC_FIELDS = frozenset({"x", "y", "x1", "y1", "x2", "y2", "duration_ms"})


def fields_from_line(line: str) -> dict[str, Any]:
    """The fields of the action that a line as given to `adb` stands for; not yet validated.

    Args:
        line: `shell <program> <arguments>`; a leading `adb` is allowed.

    Raises:
        Denied: It is no such line, or cannot be split safely.
    """
    words = split(line)
    if words[:1] == ("adb",):
        words = words[1:]
    if words[:1] != ("shell",) or len(words) == 1:
        raise Denied("a command is `shell <program> <arguments>`; for anything else use an action")
    argv = words[1:]
    for template, action in _TYPED_ACTIONS.items():
        fields = _match(template, argv)
        if fields is not None:
            return {"action": action, **fields}
    return {"action": "shell", "argv": argv}


def _match(template: str, argv: tuple[str, ...]) -> dict[str, Any] | None:
    patterns = template.split()
    if len(patterns) != len(argv):
        return None
    fields: dict[str, Any] = {}
    for pattern, word in zip(patterns, argv, strict=True):
        match = re.fullmatch(re.sub(r"<(\w+)>", r"(?P<\1>.*)", pattern), word, re.DOTALL)
        if match is None:
            return None
        fields.update(match.groupdict())
    return {
        name: int(value) if name in _NUMERIC_FIELDS and re.fullmatch(r"[0-9]{1,9}", value) else value
        for name, value in fields.items()
    }
