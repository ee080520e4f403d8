"""Programs that look at the screen: `screencap`, `screenrecord` and `uiautomator`."""

import asyncio
from collections.abc import Mapping

from ops.simulators.phone.device import Device
from ops.simulators.phone.drawing import nothing
from ops.simulators.phone.files import FileError
from ops.simulators.phone.mp4 import Movie
from ops.simulators.phone.programs.call import Call, Program
from ops.simulators.phone.ui_dump import NOT_XML, dump
from ops.simulators.phone.views import HEIGHT, SCREEN, WIDTH, group

_WARNING = (
    b"[Warning] Multiple displays were found, but no display id was specified! Defaulting to the first display found, "
    b"however this default is not guaranteed to be consistent across captures. A display id should be specified.\n"
)
_MORE_WARNINGS = (
    b"A display ID can be specified with the [-d display-id] option.\n"
    b'See "dumpsys SurfaceFlinger --display-id" for valid display IDs.\n'
)
_DISPLAY_IDS = ("4619827259835644672", "4619827551948147201")
_DUMP_PATH = "/sdcard/window_dump.xml"
_DUMP_SECONDS = 2.5
_IDLE_SECONDS = 10.0
"""How long `uiautomator` waits for the screen to come to rest."""
_STACK_TRACE = (
    b"java.lang.NoSuchMethodException: com.vendor.ScreenGuard.isEnabled []\n"
    b"\tat java.lang.Class.getMethod(Class.java:2103)\n\tat com.vendor.ScreenGuard.<init>(ScreenGuard.java:12)\n"
)
_LONGEST_RECORD_SECONDS = 180
_FRAMES_A_SECOND = 1


async def _screencap(call: Call) -> int:
    words = call.arguments
    chosen = words.index("-d") if "-d" in words[:-1] else None
    display = None
    if chosen is not None:
        display = words[chosen + 1]
        if display not in display_ids(call.device):
            return call.fail(f"Failed to take screenshot: display {display} is not valid", 1)
        del words[chosen : chosen + 2]
    paths = [word for word in words if not word.startswith("-")]
    of_second = chosen is not None and display != _DISPLAY_IDS[0]
    shown = await asyncio.to_thread(nothing) if of_second else await call.device.screenshot()
    picture = _picture(call, shown, chosen=chosen is not None)
    if not paths:
        call.out.write(picture)
        return 0
    return _keep(call, "screencap", paths[0], picture)


def display_ids(device: Device) -> list[str]:
    """The ids that SurfaceFlinger gives the displays, the first one first."""
    return list(_DISPLAY_IDS[: device.behaviour.displays])


def _picture(call: Call, picture: bytes, *, chosen: bool) -> bytes:
    if call.device.behaviour.displays > 1 and not chosen:
        return _WARNING + _MORE_WARNINGS + picture
    match call.device.behaviour.screencap:
        case "normal":
            return picture
        case "garbage":
            return b"\x89PNG\r\n\x1a\n" + b"not a picture " * 100
        case "truncated":
            return picture[: len(picture) // 2]
        case "warned":
            return _WARNING + picture


async def _uiautomator(call: Call) -> int:
    match [word for word in call.arguments if word != "--compressed"]:
        case ["dump", *paths] if len(paths) < 2:  # noqa: PLR2004  # the path may be left out
            path = paths[0] if paths else _DUMP_PATH
        case _:
            return call.fail("Unsupported command; the simulated phone knows `uiautomator dump [PATH]`", 1)
    call.device.log.write("D", "uiautomator", " ".join(call.arguments))
    if not await _comes_to_rest(call):
        call.err.write(b"ERROR: could not get idle state.\n")
        return 0  # as on a phone
    if (left := call.device.behaviour.ui_dumps_without_window) > 0:
        call.device.control.change(ui_dumps_without_window=left - 1)
        call.err.write(b"ERROR: null root node returned by UiTestAutomationBridge.\n")
        return 0  # as on a phone
    if call.device.behaviour.ui_dump_noise == "stack_trace":
        call.err.write(_STACK_TRACE)
    screen = call.device.screen
    noise = NOT_XML if call.device.behaviour.ui_dump_noise == "invalid_xml" else ""
    if screen.awake:
        document = dump(
            call.device.root(), package=screen.package, rotation=call.device.behaviour.rotation, noise=noise
        ).encode(errors="surrogatepass")
    else:
        document = dump(group(SCREEN, [], kind="android.widget.FrameLayout"), package="com.android.systemui").encode()
    if path == "/dev/tty":
        call.out.write(document)
    elif code := _keep(call, "uiautomator", path, document):
        return code
    return call.say(f"UI hierchary dumped to: {path}")


async def _comes_to_rest(call: Call) -> bool:
    behaviour = call.device.behaviour
    moves = behaviour.ui_dump == "never_idle" or (
        behaviour.ui_dump == "animated" and "--compressed" not in call.arguments
    )
    await call.last(behaviour.pace * (_IDLE_SECONDS if moves else _DUMP_SECONDS))
    return not moves


async def _screenrecord(call: Call) -> int:
    words = call.arguments
    limit_seconds = float(_LONGEST_RECORD_SECONDS)
    paths = []
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=")
        if name in ("--time-limit", "--size", "--bit-rate"):
            value = value or (words.pop(0) if words else "")
            if name == "--time-limit":
                if not value.isdigit() or not 0 < int(value) <= _LONGEST_RECORD_SECONDS:
                    return call.fail(f"Time limit {value} is outside acceptable range [1,180]", 2)
                limit_seconds = float(value)
        elif not word.startswith("-"):
            paths.append(word)
    if len(paths) != 1:
        return call.fail("Must specify output file (see --help).", 2)
    try:
        call.device.files.check_writable(paths[0])
    except FileError as error:
        return call.fail(f"Unable to open '{paths[0]}': {error}", 1)
    call.effect("record", path=paths[0], seconds=limit_seconds)
    movie = Movie(WIDTH, HEIGHT, frames_a_second=_FRAMES_A_SECOND)
    for _ in range(int(limit_seconds) * _FRAMES_A_SECOND):
        movie.add(await call.device.screenshot())
        await call.last(1 / _FRAMES_A_SECOND)
    return _keep(call, "screenrecord", paths[0], movie.content())


def _keep(call: Call, program: str, path: str, content: bytes) -> int:
    try:
        call.device.files.write(path, content)
    except FileError as error:
        return call.fail(f"{program}: cannot write {path}: {error}", 1)
    return 0


PROGRAMS: Mapping[str, Program] = {
    "screencap": _screencap,
    "screenrecord": _screenrecord,
    "uiautomator": _uiautomator,
}
