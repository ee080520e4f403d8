"""The programs on the simulated phone: what each prints, its exit code, and the effect it logs before applying it."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ops.phone.device import BATTERY_PERCENT, Device
from ops.phone.keys import key_name
from ops.phone.screen import APPS, HEIGHT, WIDTH, Touch

_WARNING = (
    b"[Warning] Multiple displays were found, but no display id was specified! Defaulting to the first display.\n"
)
_ID = b"uid=2000(shell) gid=2000(shell) groups=2000(shell),1004(input),3003(inet) context=u:r:shell:s0\n"
_SETTINGS = {("secure", "android_id"): "51a1a7ed0000f00d", ("system", "screen_brightness"): "102"}


@dataclass(frozen=True, slots=True)
class Result:
    """What a program, or a whole line, did."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int = 0
    seconds: float = 0
    """How long it takes besides."""


@dataclass(frozen=True, slots=True)
class Call:
    """One running program: the device it runs on and what its line said."""

    device: Device
    argv: Sequence[str]
    marker: str | None
    piped: bytes = b""
    """What the program before it printed."""

    def effect(self, action: str) -> None:
        """Log an effect; to be called right before it is applied."""
        self.device.effects.append(action, self.argv, running=self.device.running, marker=self.marker)


def _text(line: str) -> Result:
    return Result(line.encode() + b"\n")


def _error(line: str, exit_code: int = 255) -> Result:
    return Result(stderr=line.encode() + b"\n", exit_code=exit_code)


def _getprop(call: Call) -> Result:
    properties = call.device.properties
    if call.argv[1:]:
        return _text(properties.get(call.argv[1], ""))
    return _text("\n".join(f"[{name}]: [{value}]" for name, value in sorted(properties.items())))


def _dumpsys(call: Call) -> Result:
    screen = call.device.screen
    match list(call.argv[1:]):
        case ["battery"]:
            return _text(
                "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  Wireless powered: false\n"
                f"  status: 2\n  health: 2\n  present: true\n  level: {BATTERY_PERCENT}\n  scale: 100\n"
                "  voltage: 4213\n  temperature: 284\n  technology: Li-ion"
            )
        case ["power"]:
            return _text(f"POWER MANAGER (dumpsys power)\n  mWakefulness={'Awake' if screen.awake else 'Asleep'}")
        case ["window", *_] if not screen.awake:
            return _text("WINDOW MANAGER\n  mCurrentFocus=Window{7c1 u0 NotificationShade}\n  mFocusedApp=null")
        case ["window", *_]:
            component = f"{screen.app.package}/{screen.app.package}{screen.app.activity}"
            return _text(
                f"WINDOW MANAGER\n  mCurrentFocus=Window{{5d2 u0 {component}}}\n"
                f"  mFocusedApp=ActivityRecord{{9e4 u0 {screen.app.component} t12}}"
            )
        case [service, *_]:
            return Result(stderr=f"Can't find service: {service}\n".encode())
        case _:
            return _text("Currently running services:\n  battery\n  power\n  window")


def _input(call: Call) -> Result:
    if not call.device.behaviour.injects_input:
        return _error("java.lang.SecurityException: Injecting input events requires the caller to have INJECT_EVENTS")
    screen = call.device.screen
    match list(call.argv[1:]):
        case ["tap", *numbers] if len(numbers) == 2 and _are_numbers(numbers):  # noqa: PLR2004  # x and y
            call.effect("tap")
            x, y = map(int, numbers)
            screen.touch(Touch(x, y, x, y))
            return Result()
        case ["swipe", *numbers] if len(numbers) in (4, 5) and _are_numbers(numbers):
            call.effect("swipe")
            x1, y1, x2, y2, *duration_ms = map(int, numbers)
            screen.touch(Touch(x1, y1, x2, y2))
            return Result(seconds=(duration_ms[0] if duration_ms else 300) / 1000)
        case ["text", text]:
            return _type(call, text)
        case ["keyevent", *codes] if codes:
            return _press(call, codes)
        case _:
            return _error(f"Error: Invalid arguments for command: {' '.join(call.argv[1:2])}")


def _type(call: Call, text: str) -> Result:
    if not text.isascii():
        return _error("java.lang.NullPointerException: Attempt to get length of null array")
    call.effect("text")
    call.device.screen.type_text(_percent_s_is_a_space(text))
    return Result()


def _percent_s_is_a_space(text: str) -> str:
    """What Android's `input text` types: it has no way to write a literal `%s`."""
    return text.replace("%s", " ")


def _press(call: Call, codes: Sequence[str]) -> Result:
    names = [key_name(code) for code in codes]
    if None in names:
        return _error(f"Error: Unknown keycode: {codes[names.index(None)]}")
    call.effect("key")
    for name in names:
        call.device.screen.press(name or "")
    return Result()


def _are_numbers(words: Sequence[str]) -> bool:
    return all(word.isascii() and word.isdigit() for word in words)


def _am(call: Call) -> Result:
    match list(call.argv[1:]):
        case ["start", *_, component] if component.count("/") == 1:
            package, activity = component.split("/")
            if not _start(call, package, activity):
                return _error(f"Error type 3\nError: Activity class {{{component}}} does not exist.", 1)
            return _text(f"Starting: Intent {{ cmp={component} }}")
        case ["force-stop", package]:
            call.effect("stop_app")
            if call.device.screen.app.package == package:
                call.device.screen.press("HOME")
            return Result()
        case _:
            return _error("Error: unknown command; the simulated phone knows `am start -n` and `am force-stop`")


def _monkey(call: Call) -> Result:
    package = call.argv[call.argv.index("-p") + 1] if "-p" in call.argv[:-1] else ""
    if not _start(call, package, None):
        return Result(b"** No activities found to run, monkey aborted.\n", exit_code=252)
    return _text("Events injected: 1")


def _start(call: Call, package: str, activity: str | None) -> bool:
    screen = call.device.screen
    if not any(app.package == package for app in APPS):
        return False
    call.effect("start_app")
    return screen.start(package, activity)


def _pm(call: Call) -> Result:
    match list(call.argv[1:]):
        case ["list", "packages", *_]:
            return _text("\n".join(f"package:{app.package}" for app in APPS))
        case ["path", package] if any(app.package == package for app in APPS):
            return _text(f"package:/data/app/{package}/base.apk")
        case ["path", _]:
            return Result(exit_code=1)
        case _:
            return _error("Error: unknown command; the simulated phone knows `pm list packages` and `pm path`")


def _wm(call: Call) -> Result:
    match list(call.argv[1:]):
        case ["size"]:
            return _text(f"Physical size: {WIDTH}x{HEIGHT}")
        case ["density"]:
            return _text("Physical density: 320")
        case _:
            return _error("Error: unknown command; the simulated phone knows `wm size` and `wm density`")


def _settings(call: Call) -> Result:
    match list(call.argv[1:]):
        case ["get", namespace, name]:
            return _text(_SETTINGS.get((namespace, name), "null"))
        case _:
            return _error("Error: unknown command; the simulated phone knows `settings get`")


def _screencap(call: Call) -> Result:
    picture = call.device.screenshot()
    match call.device.behaviour.screencap:
        case "normal":
            return Result(picture)
        case "garbage":
            return Result(b"\x89PNG\r\n\x1a\n" + b"not a picture " * 100)
        case "truncated":
            return Result(picture[: len(picture) // 2])
        case "warned":
            return Result(_WARNING + picture)


def _grep(call: Call) -> Result:
    patterns = [word for word in call.argv[1:] if word != "-E"]
    if len(patterns) != 1:
        return _error("grep: the simulated phone knows `grep [-E] PATTERN`", 2)
    found = [line for line in call.piped.splitlines(keepends=True) if re.search(patterns[0].encode(), line)]
    return Result(b"".join(found), exit_code=0 if found else 1)


def _ls(call: Call) -> Result:
    missing = [path for path in call.argv[1:] if not path.startswith("-")]
    lines = "".join(f"ls: {path}: No such file or directory\n" for path in missing)
    return Result(stderr=lines.encode(), exit_code=1 if missing else 0)


def _seq(call: Call) -> Result:
    if not call.argv[1:] or not _are_numbers(call.argv[1:]):
        return _error("seq: needs 1 or 2 numbers", 1)
    first, last = (1, int(call.argv[1])) if call.argv[2:] == [] else map(int, call.argv[1:3])
    return Result("".join(f"{number}\n" for number in range(first, last + 1)).encode())


def _sleep(call: Call) -> Result:
    try:
        return Result(seconds=float(call.argv[1]))
    except (IndexError, ValueError):
        return _error("sleep: needs a number of seconds", 1)


def _cat(call: Call) -> Result:
    uptime = f"{time.monotonic() - call.device.started:.2f} 0.00\n".encode()
    files = {"/proc/uptime": uptime, "/proc/version": b"Linux version 6.1 (simulated)\n"}
    missing = [path for path in call.argv[1:] if path not in files]
    lines = "".join(f"cat: {path}: No such file or directory\n" for path in missing)
    found = b"".join(files.get(path, b"") for path in call.argv[1:])
    return Result(found, lines.encode(), 1 if missing else 0)


PROGRAMS: Mapping[str, Callable[[Call], Result]] = {
    "am": _am,
    "cat": _cat,
    "date": lambda _: _text(time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime())),
    "dumpsys": _dumpsys,
    "echo": lambda call: _text(" ".join(call.argv[1:])),
    "false": lambda _: Result(exit_code=1),
    "getprop": _getprop,
    "grep": _grep,
    "id": lambda _: Result(_ID),
    "input": _input,
    "ls": _ls,
    "monkey": _monkey,
    "pm": _pm,
    "screencap": _screencap,
    "seq": _seq,
    "settings": _settings,
    "sleep": _sleep,
    "true": lambda _: Result(),
    "whoami": lambda _: _text("shell"),
    "wm": _wm,
}
