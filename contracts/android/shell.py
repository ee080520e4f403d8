"""Which programs a phone may be given, with which arguments: the allow-list and how a line is split into words.

The list is written the way a manual page writes usage, because that is also how a refusal quotes it:

    getprop NAME            NAME is a placeholder, see _PLACEHOLDERS
    settings get system|secure|global NAME      one of
    echo WORD...            any number of, none too

No placeholder but FLAG fits what the program would take for an option.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from contracts.android import hints, intents, keys
from contracts.android.intents import Denied

METACHARACTERS = frozenset(";|&$`<>(){}[]*?~#!\\'\"\n\r\0")
"""What a shell might act on. None may stand in an argument of a free command, quoted or not."""


def _is_key(argument: str) -> bool:
    try:
        keys.one_spelling(argument)
    except ValueError:
        return False
    return argument == argument.upper()  # Android knows the names in capitals only


_PLACEHOLDERS: dict[str, Callable[[str], object]] = {
    "NAME": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}").fullmatch,
    "NUMBER": re.compile(r"[0-9]{1,5}").fullmatch,
    "PACKAGE": re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+").fullmatch,
    "COMPONENT": re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+/\.?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*").fullmatch,
    "FLAG": re.compile(r"-[a-zA-Z0-9]").fullmatch,
    "KEY": _is_key,
    # what `echo` would take for an option is none of its words
    "WORD": re.compile(r"(?!-[neE]+$)[^\n\r\0]*").fullmatch,
    # `input text` takes its word as it is, also one with a hyphen at its beginning
    "TEXT": re.compile(r"[^\n\r\0]+").fullmatch,
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
    pm list packages FLAG... NAME
    pm list packages FLAG... --user NUMBER FLAG...
    pm path PACKAGE
    pm path --user NUMBER PACKAGE
    settings get system|secure|global NAME
    true
    uptime
    whoami
    wm density|size
"""

_WRITES = """
    am force-stop PACKAGE
    am start -n COMPONENT
    input keyevent KEY KEY...
    input keyevent --longpress KEY KEY...
    input swipe NUMBER NUMBER NUMBER NUMBER
    input swipe NUMBER NUMBER NUMBER NUMBER NUMBER
    input tap NUMBER NUMBER
    input text TEXT
    monkey -p PACKAGE -c android.intent.category.LAUNCHER 1
"""


@dataclass(frozen=True, slots=True)
class _Usage:
    text: str
    read_only: bool

    def admits(self, argv: tuple[str, ...]) -> bool:
        return _admits(tuple(self.text.split()), argv)


def _admits(words: tuple[str, ...], argv: tuple[str, ...]) -> bool:
    if not words:
        return not argv
    word, rest = words[0], words[1:]
    if not word.endswith("..."):
        return bool(argv) and _fits(word, argv[0]) and _admits(rest, argv[1:])
    if _admits(rest, argv):
        return True
    return bool(argv) and _fits(word.removesuffix("..."), argv[0]) and _admits(words, argv[1:])


def _fits(word: str, argument: str) -> bool:
    placeholder = _PLACEHOLDERS.get(word)
    return bool(placeholder(argument)) if placeholder else argument in word.split("|")


def _by_program() -> dict[str, list[_Usage]]:
    by_program: dict[str, list[_Usage]] = {}
    for table, read_only in ((_READS, True), (_WRITES, False)):
        for line in table.strip().splitlines():
            by_program.setdefault(line.split()[0], []).append(_Usage(line.strip(), read_only))
    return by_program


_ALLOWED = _by_program()


def usages() -> list[str]:
    """Every line of the list."""
    return [usage.text for of_program in _ALLOWED.values() for usage in of_program]


def check(argv: tuple[str, ...]) -> bool:
    """Whether an allowed argument list only reads, so that running it twice does no harm.

    Args:
        argv: The program's name and its arguments; never given to a shell unquoted.

    Raises:
        Denied: It is not on the allow-list, or an argument holds a character a shell might act on; the message names the
            action that does the same, where there is one.
    """
    for position, argument in enumerate(argv):
        if found := METACHARACTERS.intersection(argument):
            sentence = f"argv[{position}] holds the shell metacharacter {min(found)!r}; none is allowed"
            raise Denied(sentence + hints.instead_of(argv))
    program = argv[0] if argv else ""
    usages = _ALLOWED.get(program)
    if usages is None:
        allowed = ", ".join(sorted(_ALLOWED))
        raise Denied(f"{program!r} is not on the allow-list{hints.instead_of(argv)}; allowed are {allowed}")
    for usage in usages:
        if usage.admits(argv):
            return usage.read_only
    if argv[:2] in (("am", "start"), ("am", "start-activity")):
        try:
            intents.check(argv[2:])
        except Denied as denied:
            raise Denied(f"{denied}{hints.instead_of(argv)}") from None
        return False
    reason = _wrong_key(argv) or f"these arguments of {program!r} are not on the allow-list"
    allowed = "; ".join(usage.text for usage in usages)
    raise Denied(f"{reason}{hints.instead_of(argv)}; allowed: {allowed}")


def _wrong_key(argv: tuple[str, ...]) -> str | None:
    """Why a key is none, where that is what is wrong."""
    if argv[:2] != ("input", "keyevent"):
        return None
    for argument in argv[2:]:
        try:
            spelling = keys.one_spelling(argument)
        except ValueError as error:
            return str(error)
        if argument != argument.upper():
            return f"Android knows {argument!r} only as {keys.argument(spelling)}"
    return None


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
