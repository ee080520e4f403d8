"""Input methods: the `ime` program, the `settings` program that also switches them, and what ADBKeyboard is sent."""

import base64
import binascii
from collections.abc import Mapping, Sequence

from ops.simulators.phone.apps.keyboard import ADB_KEYBOARD, ADB_KEYBOARD_METHOD
from ops.simulators.phone.device import LATIN_KEYBOARD
from ops.simulators.phone.programs.call import Call, Program
from ops.simulators.phone.programs.input_events import seen

_CURRENT = ("secure", "default_input_method")
_ENABLED = ("secure", "enabled_input_methods")
_VERBS = {"set": "selected", "enable": "enabled", "disable": "disabled"}
_NAMESPACES = ("system", "secure", "global")


async def _ime(call: Call) -> int:
    match call.arguments:
        case ["list", *flags]:
            return _list_methods(call, flags)
        case ["set" | "enable" | "disable" as verb, method]:
            if method not in call.device.input_methods:
                return call.fail(f"Unknown input method {method} cannot be {_VERBS[verb]} for user #0")
            return {"set": _select, "enable": _enable, "disable": _disable}[verb](call, method)
        case ["reset"]:
            call.effect("ime_set", method=LATIN_KEYBOARD)
            call.device.settings[_CURRENT] = call.device.settings[_ENABLED] = LATIN_KEYBOARD
            return call.say(f"Reset current and enabled IMEs for user #0\n  Selected: {LATIN_KEYBOARD}")
        case _:
            return call.fail("Error: unknown command; the simulated phone knows `ime list|set|enable|disable|reset`")


def _list_methods(call: Call, flags: Sequence[str]) -> int:
    methods = call.device.input_methods if "-a" in flags else call.device.enabled_input_methods
    if "-s" in flags:
        return call.say("\n".join(methods))
    return call.say("\n".join(f"mId={method} mSettingsActivityName=null mIsVrOnly=false" for method in methods))


def _select(call: Call, method: str) -> int:
    if method not in call.device.enabled_input_methods:
        return call.fail(f"Unknown input method {method} cannot be selected for user #0")
    call.effect("ime_set", method=method)
    call.device.settings[_CURRENT] = method
    return call.say(f"Input method {method} selected for user #0")


def _enable(call: Call, method: str) -> int:
    enabled = call.device.enabled_input_methods
    if method in enabled:
        return call.say(f"Input method {method}: already enabled for user #0")
    call.effect("ime_enable", method=method)
    call.device.settings[_ENABLED] = ":".join([*enabled, method])
    return call.say(f"Input method {method}: now enabled for user #0")


def _disable(call: Call, method: str) -> int:
    enabled = [each for each in call.device.enabled_input_methods if each != method]
    call.effect("ime_disable", method=method)
    call.device.settings[_ENABLED] = ":".join(enabled or [LATIN_KEYBOARD])
    if call.device.input_method == method:
        call.device.settings[_CURRENT] = LATIN_KEYBOARD
    return call.say(f"Input method {method}: now disabled for user #0")


async def _settings(call: Call) -> int:
    settings = call.device.settings
    match call.arguments:
        case [_, namespace, *_] if namespace not in _NAMESPACES:
            return call.fail(f"Invalid namespace '{namespace}'")
        case ["get", namespace, name]:
            return call.say(settings.get((namespace, name), "null"))
        case ["put", namespace, name, value]:
            call.effect("setting", namespace=namespace, name=name, value=value)
            settings[namespace, name] = value
            return 0
        case ["delete", namespace, name]:
            call.effect("setting", namespace=namespace, name=name, value=None)
            return call.say(f"Deleted {int(settings.pop((namespace, name), None) is not None)} rows")
        case ["list", namespace]:
            found = sorted((name, value) for (place, name), value in settings.items() if place == namespace)
            return call.say("\n".join(f"{name}={value}" for name, value in found))
        case _:
            return call.fail("Error: unknown command; the simulated phone knows `settings get|put|delete|list`")


def take_broadcast(call: Call, action: str, extras: Mapping[str, str], package: str | None) -> None:
    """What ADBKeyboard does with a broadcast; nothing when it is not the input method in use.

    Args:
        call: The program that sends it.
        action: Such as `ADB_INPUT_B64`.
        extras: Strings by name.
        package: The only receiver, if one was named.
    """
    if call.device.input_method != ADB_KEYBOARD_METHOD or package not in (None, ADB_KEYBOARD):
        return
    screen = call.device.screen
    field = screen.field()
    where = seen(field, screen.package)
    if action == "ADB_CLEAR_TEXT":
        call.effect("clear_text", field=where)
        screen.clear_text()
    elif action == "ADB_EDITOR_CODE":
        call.effect("editor_action", field=where)
        screen.press("ENTER")
    elif action in ("ADB_INPUT_TEXT", "ADB_INPUT_B64"):
        message = extras.get("msg", "")
        text = _decoded(message) if action == "ADB_INPUT_B64" else message
        if text:
            call.effect("text", text=text, field=where)
            screen.commit_text(text)


def _decoded(message: str) -> str:
    try:
        return base64.b64decode(message, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""  # the app logs the error and types nothing


PROGRAMS: Mapping[str, Program] = {"ime": _ime, "settings": _settings}
