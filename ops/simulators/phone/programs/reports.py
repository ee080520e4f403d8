"""What the phone says about itself: `getprop`, `dumpsys`, `wm`, `logcat` and `uptime`."""

import asyncio
import time
from collections.abc import Callable, Mapping

from ops.simulators.phone.device import BATTERY_PERCENT
from ops.simulators.phone.programs.call import Call, Program
from ops.simulators.phone.programs.media import display_ids
from ops.simulators.phone.views import HEIGHT, WIDTH

_FOLLOW_SECONDS = 0.2


async def _getprop(call: Call) -> int:
    properties = call.device.properties
    if call.arguments:
        return call.say(properties.get(call.arguments[0], ""))
    return call.say("\n".join(f"[{name}]: [{value}]" for name, value in sorted(properties.items())))


async def _wm(call: Call) -> int:
    match call.arguments:
        case ["size"]:
            return call.say(f"Physical size: {WIDTH}x{HEIGHT}")
        case ["density"]:
            return call.say("Physical density: 320")
        case _:
            return call.fail("Error: unknown command; the simulated phone knows `wm size` and `wm density`")


async def _uptime(call: Call) -> int:
    minutes = int(time.monotonic() - call.device.started) // 60
    return call.say(f" {time.strftime('%H:%M:%S')} up {minutes} min,  0 users,  load average: 0.00, 0.00, 0.00")


async def _dumpsys(call: Call) -> int:
    if not call.arguments:
        return call.say("Currently running services:\n" + "\n".join(f"  {name}" for name in sorted(_SERVICES)))
    service = _SERVICES.get(call.arguments[0])
    if service is None:
        call.err.write(f"Can't find service: {call.arguments[0]}\n".encode())
        return 0  # as on a phone
    return call.say(service(call))


def _battery(_: Call) -> str:
    return (
        "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  Wireless powered: false\n"
        f"  status: 2\n  health: 2\n  present: true\n  level: {BATTERY_PERCENT}\n  scale: 100\n"
        "  voltage: 4213\n  temperature: 284\n  technology: Li-ion"
    )


def _power(call: Call) -> str:
    awake = call.device.screen.awake
    return (
        f"POWER MANAGER (dumpsys power)\n  mWakefulness={'Awake' if awake else 'Asleep'}\n"
        f"  mHoldingDisplaySuspendBlocker={'true' if awake else 'false'}"
    )


def _window(call: Call) -> str:
    screen = call.device.screen
    locked = call.device.behaviour.lock != "none"
    app = f"{screen.app.package}/{screen.app.package}{screen.app.activity}"
    front = app if screen.awake and not locked else "NotificationShade"
    return (
        "WINDOW MANAGER POLICY STATE (dumpsys window policy)\n    KeyguardServiceDelegate\n"
        f"      showing={'true' if locked else 'false'}\n"
        f"WINDOW MANAGER WINDOWS (dumpsys window windows)\n  mCurrentFocus=Window{{5d2 u0 {front}}}\n"
        f"  mFocusedApp=ActivityRecord{{9e4 u0 {screen.app.component} t12}}"
    )


def _activity(call: Call) -> str:
    app = call.device.screen.app
    return (
        "ACTIVITY MANAGER ACTIVITIES (dumpsys activity activities)\n"
        f"  mResumedActivity: ActivityRecord{{9e4 u0 {app.component} t12}}\n"
        f"  topResumedActivity=ActivityRecord{{9e4 u0 {app.component} t12}}"
    )


def _package(call: Call) -> str:
    app = call.device.screen.apps.get(call.arguments[-1])
    if app is None:
        return f"Unable to find package: {call.arguments[-1]}"
    return (
        f"Packages:\n  Package [{app.package}] (51a1a7e):\n    codePath=/data/app/{app.package}\n"
        f"    versionCode=1 minSdk=26 targetSdk=34\n    versionName={app.version}\n"
        f"    pkgFlags=[ {'SYSTEM ' if app.system else ''}HAS_CODE ]"
    )


def _input_method(call: Call) -> str:
    shown = "true" if call.device.screen.field() is not None else "false"
    return (
        "Current Input Method Manager state:\n  Input Methods: mMethodMapUpdateCount=1\n"
        f"  mCurMethodId={call.device.input_method}\n  mInputShown={shown}"
    )


def _display(call: Call) -> str:
    state = "ON" if call.device.screen.awake else "OFF"
    turned = call.device.behaviour.rotation
    width, height = (HEIGHT, WIDTH) if turned in (1, 3) else (WIDTH, HEIGHT)
    ports = ", ".join(
        f"DisplayViewport{{displayId={number}, orientation={turned}, {width} x {height}}}"
        for number in range(call.device.behaviour.displays)
    )
    return f"DISPLAY MANAGER (dumpsys display)\n  mScreenState={state}\n  mViewports=[{ports}]"


def _input(call: Call) -> str:
    turned = call.device.behaviour.rotation
    return (
        "INPUT MANAGER (dumpsys input)\n  Event Hub State:\n    Devices: 1: simulated touch screen\n"
        f"  SurfaceOrientation: {turned}"
    )


def _surfaces(call: Call) -> str:
    names = ("Built-in Screen", "Outer Screen")
    return "\n".join(
        f'Display {display} (HWC display {number}): port={number} pnpId=ISH displayName="{names[number]}"'
        for number, display in enumerate(display_ids(call.device))
    )


def _memory(call: Call) -> str:
    if call.arguments[-1] not in call.device.screen.apps:
        return f"No process found for: {call.arguments[-1]}"
    return f"Applications Memory Usage (in Kilobytes):\n** MEMINFO in pid 4000 [{call.arguments[-1]}] **\n  TOTAL PSS: 65536"


_SERVICES: Mapping[str, Callable[[Call], str]] = {
    "SurfaceFlinger": _surfaces,
    "activity": _activity,
    "battery": _battery,
    "cpuinfo": lambda _: "Load: 0.0 / 0.0 / 0.0\n0% TOTAL: 0% user + 0% kernel",
    "display": _display,
    "input": _input,
    "input_method": _input_method,
    "meminfo": _memory,
    "package": _package,
    "power": _power,
    "wifi": lambda _: "Wi-Fi is enabled\nmNetworkInfo: simulated",
    "window": _window,
}


async def _logcat(call: Call) -> int:
    log = call.device.log
    words = call.arguments
    if "-c" in words:
        log.clear()
        return 0
    ends = "-d" in words or "-t" in words
    count, wanted = _selection(words)
    shown = 0
    for line in log.lines()[-count:] if count else log.lines():
        shown = line.number
        if wanted is None or line.tag in wanted:
            call.say(str(line))
    while not ends:
        await call.out.flush()
        await asyncio.sleep(_FOLLOW_SECONDS)
        for line in log.lines(after=shown):
            shown = line.number
            if wanted is None or line.tag in wanted:
                call.say(str(line))
    return 0


def _selection(words: list[str]) -> tuple[int, set[str] | None]:
    """How many of the last lines, 0 for all, and the tags that are wanted, None for all."""
    count, tags, silent = 0, set(), False
    left = list(words)
    while left:
        word = left.pop(0)
        if word in ("-t", "-T") and left:
            count = int(left.pop(0)) if left[0].isdigit() else 0
        elif word in ("-v", "-b") and left:
            left.pop(0)
        elif word == "-s":
            silent = True
        elif not word.startswith("-"):
            tag, _, level = word.partition(":")
            silent = silent or (tag, level) == ("*", "S")
            tags.add(tag)
    return count, tags - {"*"} if silent else None


PROGRAMS: Mapping[str, Program] = {
    "dumpsys": _dumpsys,
    "getprop": _getprop,
    "logcat": _logcat,
    "uptime": _uptime,
    "wm": _wm,
}
