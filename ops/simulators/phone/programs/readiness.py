"""Which programs a booting phone cannot run yet and what they print then."""

from ops.simulators.phone.programs.call import Call

_SERVICES = {
    "am": "activity",
    "ime": "input_method",
    "input": "input",
    "pm": "package",
    "settings": "settings",
    "wm": "window",
}
"""The service that each of these asks."""
_NO_SERVICE = 20
_NO_SYSTEM = 253
_NO_SCREEN = 1


def refused_while_booting(call: Call) -> int | None:
    """Print what a program says before Android's services are there.

    Returns:
        Its exit code; None for a program that runs all the same.
    """
    name, arguments = call.argv[0].removeprefix("/system/bin/"), call.arguments
    if name == "cmd" and arguments:
        return call.fail(f"cmd: Can't find service: {arguments[0]}", _NO_SERVICE)
    if name in _SERVICES:
        return call.fail(f"cmd: Can't find service: {_SERVICES[name]}", _NO_SERVICE)
    if name == "dumpsys" and arguments:
        return call.fail(f"Can't find service: {arguments[0]}", 0)  # as on a phone
    if name == "monkey":
        return call.fail("** Error: Unable to connect to activity manager; is the system running?", _NO_SYSTEM)
    if name in ("screencap", "screenrecord", "uiautomator"):
        return call.fail(f"{name}: no display is there yet; is the system running?", _NO_SCREEN)
    return None
