"""What each simple action is on a phone: the one command line that carries it out and how its output is read. No I/O."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

from contracts.android import actions as android
from contracts.android import keys, screen_actions
from workers.android.adb.server import MAX_OUTPUT_BYTES, ShellOutput
from workers.android.pictures import read_picture
from workers.android.readings import (
    Reading,
    failure,
    read_silence,
    read_started,
    succeeded,
    text_of,
)
from workers.android.reports import read_battery, read_focus, read_properties, read_screen

_SEPARATOR = "--ish-section--"
# the lock screen is told in other words by almost every version
_FOCUS = (
    "dumpsys window | "
    "grep -E 'mCurrentFocus|mFocusedApp|mShowingLockscreen=|mDreamingLockscreen=|mIsShowing=|^ *showing=(true|false)'"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one action is carried out.

    `read` raises `contracts.errors.Permanent` when the output says that the phone did not do it.
    """

    line: str
    read: Callable[[ShellOutput], Reading]
    max_output_bytes: int | None = MAX_OUTPUT_BYTES
    """None allows as much as an artifact may hold."""


@singledispatch
def plan(action: object) -> Plan:
    """How an action is carried out.

    Args:
        action: One of `contracts.android.actions` that takes one command line.
    """
    raise TypeError(f"{type(action).__name__} is not carried out by one command line")


@plan.register
def _(action: screen_actions.Tap) -> Plan:
    return _silent(f"input tap {action.x} {action.y}")


@plan.register
def _(action: screen_actions.Swipe) -> Plan:
    return _silent(f"input swipe {action.x1} {action.y1} {action.x2} {action.y2} {action.duration_ms}")


@plan.register
def _(action: screen_actions.LongPress) -> Plan:
    return _silent(f"input swipe {action.x} {action.y} {action.x} {action.y} {action.duration_ms}")


@plan.register
def _(action: screen_actions.PressKey) -> Plan:
    return _silent(f"input keyevent {keys.argument(action.key)}")


@plan.register
def _(_: android.Wake) -> Plan:
    return _silent("input keyevent KEYCODE_WAKEUP")


@plan.register
def _(action: android.OpenUrl) -> Plan:
    words = ["am", "start", "-a", "android.intent.action.VIEW", "-d", action.url]
    line = shlex.join([*words, *(["-p", action.package] if action.package else [])])
    return Plan(line, lambda output: read_started(output, {"url": action.url}))


@plan.register
def _(action: android.StopApp) -> Plan:
    # without a user it would be ended for all of them
    return _silent(f"am force-stop --user current {action.package}")


@plan.register
def _(_: screen_actions.TakeScreenshot) -> Plan:
    return Plan("screencap -p", read_picture, max_output_bytes=None)


@plan.register
def _(action: android.GetProperty) -> Plan:
    name = action.name
    if name is None:
        return Plan("getprop", lambda output: Reading({"properties": read_properties(text_of(succeeded(output)))}))
    line = f"getprop {shlex.quote(name)}"
    return Plan(line, lambda output: Reading({"name": name, "value": text_of(succeeded(output)).strip("\r\n")}))


@plan.register
def _(_: android.GetBattery) -> Plan:
    return Plan("dumpsys battery", lambda output: Reading(read_battery(text_of(succeeded(output)))))


@plan.register
def _(_: android.GetCurrentApp) -> Plan:
    return Plan(_FOCUS, _read_current_app)


@plan.register
def _(_: android.GetStatus) -> Plan:
    parts = ("getprop", "dumpsys battery", "wm size", "dumpsys power | grep mWakefulness=", _FOCUS)
    return Plan(f"; echo {_SEPARATOR}; ".join(parts), _read_status)


@plan.register
def _(action: android.ReadLog) -> Plan:
    # `*:S` silences every tag that is not named
    words = ["logcat", "-d", "-t", str(action.lines), *action.filter, *(["*:S"] if action.filter else [])]
    return Plan(shlex.join(words), _read_log, action.max_output_bytes)


@plan.register
def _(action: android.RunShell) -> Plan:
    return Plan(shlex.join(action.argv), _read_shell, action.max_output_bytes)


def _silent(line: str) -> Plan:
    return Plan(line, read_silence)


def _read_current_app(output: ShellOutput) -> Reading:
    if output.exit_code not in (0, 1):  # 1 is grep's: nothing has the focus
        raise failure(output)
    return Reading(dict(read_focus(text_of(output.stdout))))


def _read_status(output: ShellOutput) -> Reading:
    sections = text_of(output.stdout).split(f"{_SEPARATOR}\n")
    properties_report, battery, size, power, focus = (*sections, "", "", "", "", "")[:5]
    properties = read_properties(properties_report)
    return Reading(
        {
            "model": properties.get("ro.product.model"),
            "manufacturer": properties.get("ro.product.manufacturer"),
            "android_version": properties.get("ro.build.version.release"),
            "sdk": properties.get("ro.build.version.sdk"),
            "battery": read_battery(battery),
            "screen": read_screen(size, power),
            "current_app": read_focus(focus),
        }
    )


def _read_log(output: ShellOutput) -> Reading:
    if output.exit_code:
        raise failure(output)
    log = text_of(output.stdout)
    return Reading({"log": log, "lines": len(log.splitlines()), "truncated": output.truncated})


def _read_shell(output: ShellOutput) -> Reading:
    if output.exit_code:
        raise failure(output)
    return Reading(
        {
            "stdout": text_of(output.stdout),
            "stderr": text_of(output.stderr),
            "exit_code": output.exit_code,
            "truncated": output.truncated,
        }
    )
