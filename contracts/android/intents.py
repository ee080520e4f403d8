"""Which `am start` command lines a phone may be given: what they open, and which extras they may carry.

An intent may ask for more than opening a page: a call is placed, a file of the phone is handed to another app. So what it
asks for is one of a closed list, or an app's own action, and its data is an address that shows nothing of the phone.
"""

import re
from collections.abc import Callable


class Denied(ValueError):
    """The command line is not one a phone may be given; the message names the rule it breaks."""


_ANDROIDS_OWN = re.compile(r"(com\.)?android\..*")
_ACTIONS = re.compile(
    r"android\.intent\.action\.(MAIN|VIEW|SEND|SENDTO|DIAL|WEB_SEARCH|SEARCH|SHOW_APP_INFO)"
    r"|android\.settings\.[A-Z0-9_.]+"
    r"|android\.media\.action\.[A-Z0-9_]+"
)
_ACTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):\S+")
_CLOSED_SCHEMES = frozenset({"javascript", "file", "content", "data", "intent", "android-app", "about", "view-source"})
"""Those that run a script, show the phone's own files, or stand for another intent."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+")
_COMPONENT = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+/\.?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


def url_fault(url: str) -> str | None:
    """What is wrong with an address that a phone is to open; None when nothing is.

    Args:
        url: As given.
    """
    match = _SCHEME.fullmatch(url)
    if match is None or not url.isprintable():
        return "must be an address with its scheme, such as https://example.org/ or market://details?id=com.app"
    if match[1].lower() in _CLOSED_SCHEMES:
        return f"must not be one of the scheme {match[1].lower()!r}, which a phone is not given"
    return None


def _is_action(value: str) -> bool:
    if _ANDROIDS_OWN.fullmatch(value):
        return _ACTIONS.fullmatch(value) is not None
    return _ACTION_NAME.fullmatch(value) is not None


def _matches(pattern: str | re.Pattern[str]) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda value: compiled.fullmatch(value) is not None


_OPTIONS: dict[str, Callable[[str], bool]] = {
    "-a": _is_action,
    "-c": _matches(r"(android\.intent\.category\.)?[A-Za-z][A-Za-z0-9_.]*"),
    "-d": lambda value: url_fault(value) is None,
    "-n": _matches(_COMPONENT),
    "-p": _matches(_PACKAGE),
    "-t": _matches(r"[a-z]+/[a-z0-9.+\-]+"),
    "-f": _matches(r"0x[0-9a-fA-F]{1,8}|[0-9]{1,10}"),
    "--user": _matches(r"[0-9]{1,5}|current"),
}
_EXTRAS: dict[str, Callable[[str], bool]] = {
    "--es": _matches(r"(?!-).+"),
    "-e": _matches(r"(?!-).+"),
    "--eu": lambda value: url_fault(value) is None,
    "--ez": _matches("true|false"),
    "--ei": _matches(r"[0-9]{1,10}"),
    "--el": _matches(r"[0-9]{1,19}"),
    "--ef": _matches(r"[0-9]{1,10}(\.[0-9]{1,10})?"),
}
_ALONE = frozenset({"-W", "-S", "--activity-clear-top", "--activity-single-top", "--activity-clear-task"})
_WHAT = frozenset({"-a", "-d", "-n", "-p"})
_NAMED = frozenset({"-a", "-c", "-n", "-p"})
_USAGE = (
    "am start takes -W, -S, -a ACTION, -d URL, -t TYPE, -c CATEGORY, -n PACKAGE/ACTIVITY, -p PACKAGE, -f FLAGS, "
    "--es|--ez|--ei|--el|--ef|--eu NAME VALUE"
)


def check(words: tuple[str, ...]) -> None:
    """Pass the arguments of an `am start` that a phone may be given.

    Args:
        words: All after `am start`.

    Raises:
        Denied: They are not; the message names the argument and what is allowed.
    """
    left = list(words)
    given = set()
    while left:
        name = left.pop(0)
        given.add(name)
        if name in _ALONE:
            continue
        if name in _OPTIONS and left:
            _pass(name, left.pop(0), _OPTIONS[name])
        elif name in _EXTRAS and len(left) > 1:
            _pass(name, left.pop(0), _matches(_NAME))
            _pass(name, left.pop(0), _EXTRAS[name])
        else:
            raise Denied(f"{name!r} is not on the allow-list here: {_USAGE}")
    if not given & _WHAT:
        raise Denied(f"am start must say what to start: {_USAGE}")


def _pass(name: str, value: str, fits: Callable[[str], bool]) -> None:
    if not fits(value):
        # only names are repeated: an extra or an address may be somebody's secret
        what = repr(value[:100]) if name in _NAMED else "what stands there"
        raise Denied(f"{what} is not on the allow-list for {name}: {_USAGE}")
