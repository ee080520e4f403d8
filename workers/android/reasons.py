"""Finds, in what a phone's program printed, the line that says why it failed. Pure text in, one line out.

Android's programs are written in Java: a failure is a page of stack trace, and its first line is never the reason. Phones
of some vendors print a page of their own before the answer, also when all is well.
"""

import re
from collections.abc import Iterator

from workers.android.adb.server import ShellOutput

MAX_REASON_CHARACTERS = 300
_SEARCHED_BYTES = 64 * 1024
_SAYS_WHY = 3
"""From this rank on a line says that something failed; below it is only the best guess."""

_RANKS = (
    # stack frames, headings, and what programs say of themselves before they begin
    (
        0,
        re.compile(
            r"at [\w.$/<>-]+\(.*|\.\.\. \d+ more|-+ ?beginning of .*|Exception occurred while .*|Error type \d+"
        ),
    ),
    (
        0,
        re.compile(
            r"pkg: .*|Starting: .*|Broadcasting: .*|WARNING: linker.*|(bash )?arg: .*|args: \[.*|data=.*|:Monkey: .*"
        ),
    ),
    # what vendors' own classes complain of when any Java program begins
    (
        2,
        re.compile(
            r".*\b(NoSuch(Method|Field)Exception|ClassNotFoundException|NoClassDefFoundError|UnsatisfiedLinkError)\b.*"
        ),
    ),
    (6, re.compile(r".*\b(Failure \[|INSTALL_(PARSE_)?FAILED|DELETE_FAILED).*")),
    (5, re.compile(r"(Caused by: )?([\w$]+\.)+[\w$]*(Exception|Error): \S.*|Security exception: \S.*")),
    (4, re.compile(r"error\b ?: ?\S.*", re.IGNORECASE)),
    (4, re.compile(r"\*\* \S.*")),
    (_SAYS_WHY, re.compile(r"(Caused by: )?([\w$]+\.)+[\w$]*(Exception|Error)\b.*|.*\bException: .*")),
    (2, re.compile(r"[\w./ -]+: \S.*")),
)
_ANYTHING = 1


def reason(output: ShellOutput) -> str:
    """The line that says most about why a program failed, at most `MAX_REASON_CHARACTERS` long."""
    ranked = max(_ranked(output), key=lambda found: found[0], default=(0, ""))
    line = ranked[1] or "it printed nothing"
    return line if len(line) <= MAX_REASON_CHARACTERS else line[: MAX_REASON_CHARACTERS - 1] + "…"


def complains(output: ShellOutput) -> bool:
    """Whether a program says that it failed, whatever its exit code says."""
    return any(rank >= _SAYS_WHY for rank, _ in _ranked(output))


def _ranked(output: ShellOutput) -> Iterator[tuple[int, str]]:
    for content in (output.stderr, output.stdout):
        printed = content[:_SEARCHED_BYTES].decode(errors="replace").replace("\0", "\ufffd")
        for line in filter(None, map(str.strip, printed.splitlines())):
            yield next((rank for rank, pattern in _RANKS if pattern.fullmatch(line)), _ANYTHING), line
