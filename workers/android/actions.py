"""What each typed action is on a phone: the command line that carries it out and how its output is read. No I/O."""

import hashlib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from contracts import android
from contracts.errors import ErrorCode, Permanent
from workers.android.adb import MAX_OUTPUT_BYTES, ShellOutput
from workers.android.png import NotAPicture, find_picture
from workers.android.reports import read_battery, read_focus, read_properties, read_screen
from workers.handler import Artifact

_MAX_SCREENSHOT_BYTES = 32 * 1024 * 1024
_QUOTED_IN_ERRORS_BYTES = 2000
_SEPARATOR = "--ish-section--"
_FOCUS = "dumpsys window | grep -E 'mCurrentFocus|mFocusedApp'"
_TYPEABLE = re.compile(r"[\n\t\x20-\x7e]*")
_REFUSED = re.compile(r"SecurityException|INJECT_EVENTS|Permission denied|not allowed to", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reading:
    """An action's answer."""

    output: dict[str, Any]
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How one action is carried out.

    `read` raises `contracts.errors.Permanent` when the output says that the phone did not do it.
    """

    line: str
    read: Callable[[ShellOutput], Reading]
    max_output_bytes: int = MAX_OUTPUT_BYTES


@singledispatch
def plan(action: object) -> Plan:
    """How an action is carried out.

    Args:
        action: One of `contracts.android.Action`.

    Raises:
        Permanent: No phone can be asked to do this (unsupported_text_input).
    """
    raise NotImplementedError(type(action).__name__)


@plan.register
def _(action: android.Tap) -> Plan:
    return _silent(f"input tap {action.x} {action.y}")


@plan.register
def _(action: android.Swipe) -> Plan:
    return _silent(f"input swipe {action.x1} {action.y1} {action.x2} {action.y2} {action.duration_ms}")


@plan.register
def _(action: android.LongPress) -> Plan:
    return _silent(f"input swipe {action.x} {action.y} {action.x} {action.y} {action.duration_ms}")


@plan.register
def _(action: android.PressKey) -> Plan:
    return _silent(f"input keyevent {action.key if action.key.isdigit() else 'KEYCODE_' + action.key}")


@plan.register
def _(action: android.TypeText) -> Plan:
    if not _TYPEABLE.fullmatch(action.text):
        sentence = "`input text` types ASCII only; other characters need the ADBKeyboard input method, which is not supported yet"
        raise Permanent(ErrorCode.UNSUPPORTED_TEXT_INPUT, sentence)
    # `input text` turns every %s into a space and has no escape for it: such a text is typed in pieces
    pieces = re.split(r"(?<=%)(?=s)", action.text)
    return _silent(" && ".join(f"input text {shlex.quote(piece)}" for piece in pieces))


@plan.register
def _(_: android.Wake) -> Plan:
    return _silent("input keyevent KEYCODE_WAKEUP")


@plan.register
def _(action: android.StartApp) -> Plan:
    started = {"package": action.package} | ({"activity": action.activity} if action.activity else {})
    if action.activity is not None:
        line = f"am start -n {shlex.quote(f'{action.package}/{action.activity}')}"
    else:
        line = f"monkey -p {action.package} -c android.intent.category.LAUNCHER 1"
    return Plan(line, lambda output: _read_started(output, started))


@plan.register
def _(_: android.TakeScreenshot) -> Plan:
    return Plan("screencap -p", _read_screenshot, _MAX_SCREENSHOT_BYTES)


@plan.register
def _(action: android.GetProperty) -> Plan:
    name = action.name
    if name is None:
        return Plan("getprop", lambda output: Reading({"properties": read_properties(_text(_succeeded(output)))}))
    line = f"getprop {shlex.quote(name)}"
    return Plan(line, lambda output: Reading({"name": name, "value": _text(_succeeded(output)).strip("\r\n")}))


@plan.register
def _(_: android.GetBattery) -> Plan:
    return Plan("dumpsys battery", lambda output: Reading(read_battery(_text(_succeeded(output)))))


@plan.register
def _(_: android.GetCurrentApp) -> Plan:
    return Plan(_FOCUS, _read_current_app)


@plan.register
def _(_: android.GetStatus) -> Plan:
    parts = ("getprop", "dumpsys battery", "wm size", "dumpsys power | grep mWakefulness=", _FOCUS)
    return Plan(f"; echo {_SEPARATOR}; ".join(parts), _read_status)


@plan.register
def _(action: android.RunShell) -> Plan:
    return Plan(shlex.join(action.argv), _read_shell)


def _silent(line: str) -> Plan:
    """A program that prints nothing unless something is wrong, whatever its exit code says."""
    return Plan(line, _read_silence)


def _read_silence(output: ShellOutput) -> Reading:
    if b"Error" in output.stdout + output.stderr or b"Exception" in output.stdout + output.stderr:
        raise _failure(output)
    _succeeded(output)
    return Reading({})


def _read_started(output: ShellOutput, started: dict[str, str]) -> Reading:
    # both programs have versions that exit 0 after failing
    if b"Error" in output.stdout + output.stderr or b"No activities found" in output.stdout + output.stderr:
        raise _failure(output)
    _succeeded(output)
    return Reading(dict(started))


def _read_screenshot(output: ShellOutput) -> Reading:
    printed = _succeeded(output) if not output.truncated else b""
    try:
        picture = find_picture(printed)
    except NotAPicture as error:
        sentence = f"the phone sent no usable screenshot: {error}"
        raise Permanent(ErrorCode.BAD_SCREENSHOT, sentence, details={"size_bytes": len(printed)}) from error
    sha256 = hashlib.sha256(picture.content).hexdigest()
    facts = {
        "sha256": sha256,
        "size_bytes": len(picture.content),
        "content_type": "image/png",
        "width": picture.width,
        "height": picture.height,
        "href": f"/api/artifacts/{sha256}",
    }
    return Reading({"artifact": facts}, (Artifact(sha256, "image/png", picture.content),))


def _read_current_app(output: ShellOutput) -> Reading:
    if output.exit_code not in (0, 1):  # 1 is grep's: nothing has the focus
        raise _failure(output)
    return Reading(dict(read_focus(_text(output.stdout))))


def _read_status(output: ShellOutput) -> Reading:
    sections = _text(output.stdout).split(f"{_SEPARATOR}\n")
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


def _read_shell(output: ShellOutput) -> Reading:
    if output.exit_code:
        raise _failure(output)
    return Reading(
        {
            "stdout": _text(output.stdout),
            "stderr": _text(output.stderr),
            "exit_code": output.exit_code,
            "truncated": output.truncated,
        }
    )


def _succeeded(output: ShellOutput) -> bytes:
    if output.exit_code:
        raise _failure(output)
    return output.stdout


def _failure(output: ShellOutput) -> Permanent:
    stdout, stderr = _text(output.stdout[:_QUOTED_IN_ERRORS_BYTES]), _text(output.stderr[:_QUOTED_IN_ERRORS_BYTES])
    said = next((line.strip() for line in (stderr + "\n" + stdout).splitlines() if line.strip()), "it printed nothing")
    details = {"exit_code": output.exit_code, "stdout": stdout, "stderr": stderr}
    if _REFUSED.search(stderr + stdout):
        sentence = (
            f"the phone does not permit this to adb; some vendors need 'USB debugging (Security settings)': {said}"
        )
        return Permanent(ErrorCode.DENIED, sentence, details=details)
    return Permanent(
        ErrorCode.NONZERO_EXIT, f"the phone reported failure ({output.exit_code}): {said}", details=details
    )


def _text(content: bytes) -> str:
    """Text that JSON and PostgreSQL can hold: what is not UTF-8, and NUL, becomes U+FFFD."""
    return content.decode(errors="replace").replace("\0", "\ufffd")
