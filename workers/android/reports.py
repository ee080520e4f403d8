"""Reads what Android's own programs print: battery, focus, screen size, properties, packages. Pure text in, JSON-ready facts out."""

import re
from typing import Any

_BATTERY_STATUS = {1: "unknown", 2: "charging", 3: "discharging", 4: "not_charging", 5: "full"}
_BATTERY_HEALTH = {1: "unknown", 2: "good", 3: "overheat", 4: "dead", 5: "over_voltage", 6: "failure", 7: "cold"}
_POWER_SOURCES = {"AC powered": "ac", "USB powered": "usb", "Wireless powered": "wireless", "Dock powered": "dock"}

_FIELD = re.compile(r"^\s*([A-Za-z ]+): (\S+)\s*$", re.MULTILINE)
_PROPERTY = re.compile(r"^\[(.*?)\]: \[(.*?)\]$", re.MULTILINE | re.DOTALL)
_CURRENT_FOCUS = re.compile(r"mCurrentFocus=Window\{\S+ (?:u\d+ )?(.*?)\}?$", re.MULTILINE)
_FOCUSED_APP = re.compile(r"mFocusedApp=\S+\{.*?([A-Za-z][\w.]*)/([\w.$]+)")
_COMPONENT = re.compile(r"([A-Za-z][\w.]*)/([\w.$]+)")
_LOCKED = re.compile(r"(?:mShowingLockscreen|mDreamingLockscreen|mIsShowing|^\s*showing)=(true|false)", re.MULTILINE)
_SYSTEM_WINDOWS = frozenset({"NotificationShade", "StatusBar", "Keyguard", "KeyguardViewMediator", "Bouncer"})
"""The lock screen and the shade over all apps, by their windows' names."""
_SIZE = re.compile(r"^(Physical|Override) size: (\d+)x(\d+)", re.MULTILINE)


def read_battery(report: str) -> dict[str, Any]:
    """`dumpsys battery`.

    Returns:
        `level_percent`, `status`, `health`, `power_source`, `temperature_celsius`, `voltage_volts`; what the phone does
        not report is None. Scale and codes as in android.os.BatteryManager.
    """
    fields = dict(_FIELD.findall(report))
    level, scale = _number(fields.get("level")), _number(fields.get("scale")) or 100
    temperature, voltage = _number(fields.get("temperature")), _number(fields.get("voltage"))
    return {
        "level_percent": None if level is None else round(100 * level / scale),
        "status": _BATTERY_STATUS.get(_number(fields.get("status")) or 0),
        "health": _BATTERY_HEALTH.get(_number(fields.get("health")) or 0),
        "power_source": next((name for key, name in _POWER_SOURCES.items() if fields.get(key) == "true"), None),
        "temperature_celsius": None if temperature is None else temperature / 10,
        "voltage_volts": None if voltage is None else voltage / 1000,
    }


def read_focus(report: str) -> dict[str, Any]:
    """The lines of `dumpsys window` about focus and the lock screen.

    Returns:
        `package` and `activity` in front, the latter in full; both None when no app has the focus: behind the lock screen
        or the notification shade it takes no touches. `locked` is there when the phone tells.
    """
    told = set(_LOCKED.findall(report))
    locked = {"locked": "true" in told} if told else {}
    title = next(filter(None, _CURRENT_FOCUS.findall(report)), None)
    match = _COMPONENT.search(title) if title is not None else None
    covered = title in _SYSTEM_WINDOWS or (title is None and locked.get("locked"))
    if match is None and not covered:
        match = _FOCUSED_APP.search(report)
    if match is None:
        return {"package": None, "activity": None, **locked}
    package, activity = match.groups()
    return {"package": package, "activity": package + activity if activity.startswith(".") else activity, **locked}


def read_properties(report: str) -> dict[str, str]:
    """`getprop` without a name: every property and its value, which may span lines."""
    return dict(_PROPERTY.findall(report))


def read_packages(report: str) -> list[str]:
    """`pm list packages`: the packages, sorted."""
    return sorted(line.removeprefix("package:").strip() for line in report.splitlines() if line.startswith("package:"))


def read_screen(size_report: str, power_report: str) -> dict[str, Any]:
    """`wm size` and the wakefulness line of `dumpsys power`.

    Returns:
        `width` and `height` in pixels (an override wins over the panel's own), and whether it is `on`.
    """
    sizes = {kind: (int(width), int(height)) for kind, width, height in _SIZE.findall(size_report)}
    width, height = sizes.get("Override") or sizes.get("Physical") or (None, None)
    wakefulness = re.search(r"mWakefulness=(\w+)", power_report)
    return {"width": width, "height": height, "on": wakefulness[1] == "Awake" if wakefulness else None}


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and re.fullmatch(r"-?[0-9]{1,9}", value) else None
