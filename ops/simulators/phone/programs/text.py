"""Programs that print, wait and filter: echo, grep, seq, sleep and their like."""

import asyncio
import operator
import re
import time
from collections.abc import Callable, Mapping

from ops.simulators.phone.files import Entry
from ops.simulators.phone.programs.call import Call, Program

_ID = "uid=2000(shell) gid=2000(shell) groups=2000(shell),1004(input),3003(inet) context=u:r:shell:s0"
_SEQUENCE_BLOCK = 10_000


async def _echo(call: Call) -> int:
    newline = call.arguments[:1] != ["-n"]
    words = " ".join(call.arguments[not newline :])
    call.out.write(words.encode() + (b"\n" if newline else b""))
    return 0


async def _true(_: Call) -> int:
    return 0


async def _false(_: Call) -> int:
    return 1


async def _id(call: Call) -> int:
    return call.say(_ID)


async def _whoami(call: Call) -> int:
    return call.say("shell")


async def _date(call: Call) -> int:
    shape = "%a %b %e %H:%M:%S UTC %Y"
    if call.arguments and call.arguments[0].startswith("+"):
        shape = call.arguments[0][1:].replace("%s", str(int(time.time())))
    return call.say(time.strftime(shape, time.gmtime()))


async def _sleep(call: Call) -> int:
    try:
        seconds = float(call.argv[1])
    except (IndexError, ValueError):
        return call.fail("sleep: needs a number of seconds", 1)
    await asyncio.sleep(seconds)
    return 0


async def _seq(call: Call) -> int:
    numbers = call.arguments
    if len(numbers) not in (1, 2) or not all(word.isascii() and word.isdigit() for word in numbers):
        return call.fail("seq: needs 1 or 2 numbers", 1)
    first, last = (1, int(numbers[0])) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))
    for start in range(first, last + 1, _SEQUENCE_BLOCK):
        block = range(start, min(start + _SEQUENCE_BLOCK, last + 1))
        call.out.write("".join(f"{number}\n" for number in block).encode())
        await call.out.drain()
    return 0


async def _grep(call: Call) -> int:
    flags = {letter for word in call.arguments if word.startswith("-") for letter in word[1:]}
    patterns = [word for word in call.arguments if not word.startswith("-")]
    if len(patterns) != 1 or not flags <= set("Eicvq"):
        return call.fail("grep: the simulated phone knows `grep [-Eicvq] PATTERN`", 2)
    try:
        pattern = re.compile(patterns[0].encode(), re.IGNORECASE if "i" in flags else 0)
    except re.error as error:
        return call.fail(f"grep: bad REGEX: {error}", 2)
    lines = (await call.stdin.read_all()).splitlines(keepends=True)
    found = [line for line in lines if (pattern.search(line) is None) == ("v" in flags)]
    if "c" in flags:
        call.say(str(len(found)))
    elif "q" not in flags:
        call.out.write(b"".join(found))
    return 0 if found else 1


async def _head(call: Call) -> int:
    match call.arguments:
        case ["-n", count] if count.isdigit():
            lines = int(count)
        case []:
            lines = 10
        case _:
            return call.fail("head: the simulated phone knows `head [-n COUNT]`", 1)
    for _ in range(lines):
        line = await call.stdin.read_line()
        if line is None:
            break
        call.out.write(line + b"\n")
    return 0


async def _test(call: Call) -> int:
    """`test` and `[`, which wants a `]` at its end."""
    words = call.arguments
    if call.argv[0] == "[":
        if words[-1:] != ["]"]:
            return call.fail("/system/bin/sh: [: missing ]", 2)
        words = words[:-1]
    negated = len(words) > 1 and words[0] == "!"
    holds = _holds(call, words[1:] if negated else words)
    if holds is None:
        return call.fail(f"/system/bin/sh: {call.argv[0]}: {' '.join(words)}: unexpected operator/operand", 2)
    return 0 if holds != negated else 1


def _holds(call: Call, words: list[str]) -> bool | None:
    """Whether the condition is true; None when it is no condition."""
    match words:
        case []:
            return False
        case [word]:
            return bool(word)
        case [sign, operand] if sign in _ABOUT_ONE:
            return _ABOUT_ONE[sign](call.device.files.entry(operand), operand)
        case [left, sign, right] if sign in _ABOUT_TEXTS:
            return _ABOUT_TEXTS[sign](left, right)
        case [left, sign, right] if sign in _ABOUT_NUMBERS and _is_number(left) and _is_number(right):
            return _ABOUT_NUMBERS[sign](int(left), int(right))
        case _:
            return None


_ABOUT_ONE: Mapping[str, Callable[[Entry | None, str], bool]] = {
    "-d": lambda entry, _: entry is not None and entry.is_folder,
    "-e": lambda entry, _: entry is not None,
    "-f": lambda entry, _: entry is not None and not entry.is_folder,
    "-n": lambda _, word: bool(word),
    "-s": lambda entry, _: entry is not None and entry.size_bytes > 0,
    "-z": lambda _, word: not word,
}
_ABOUT_TEXTS: Mapping[str, Callable[[str, str], bool]] = {"=": operator.eq, "==": operator.eq, "!=": operator.ne}
_ABOUT_NUMBERS: Mapping[str, Callable[[int, int], bool]] = {
    "-eq": operator.eq,
    "-ne": operator.ne,
    "-lt": operator.lt,
    "-le": operator.le,
    "-gt": operator.gt,
    "-ge": operator.ge,
}


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,18}", word) is not None


PROGRAMS: Mapping[str, Program] = {
    ":": _true,
    "[": _test,
    "date": _date,
    "echo": _echo,
    "false": _false,
    "grep": _grep,
    "head": _head,
    "id": _id,
    "seq": _seq,
    "sleep": _sleep,
    "test": _test,
    "true": _true,
    "whoami": _whoami,
}
