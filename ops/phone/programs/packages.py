"""The package manager: `pm` and `cmd package`; what installs apps is in `installs`."""

from collections.abc import Mapping, Sequence

from ops.phone.programs import installs
from ops.phone.programs.call import Call, Program


async def _pm(call: Call) -> int:
    return await _package(call, call.arguments)


async def _cmd(call: Call) -> int:
    match call.arguments:
        case ["package", *words]:
            return await _package(call, words)
        case [service, *_]:
            return call.fail(f"cmd: Can't find service: {service}", 20)
        case _:
            return call.fail("cmd: No service specified; use -l to list all running services.", 20)


async def _package(call: Call, words: Sequence[str]) -> int:
    match list(words):
        case [verb, *rest] if verb in installs.VERBS:
            return await installs.VERBS[verb](call, rest)
        case ["list", what, *rest] if what in _LISTS:
            return _LISTS[what](call, rest)
        case ["path" | "uninstall" | "clear" as verb, *_, package]:
            return {"path": _path, "uninstall": _uninstall, "clear": _clear}[verb](call, package)
        case _:
            return call.fail("Error: unknown command; the simulated phone knows `pm list|path|install|uninstall|clear`")


def _path(call: Call, package: str) -> int:
    if package not in call.device.screen.apps:
        return 1
    return call.say(f"package:/data/app/{package}/base.apk")


def _list_packages(call: Call, words: Sequence[str]) -> int:
    flags = {word for word in words if word.startswith("-")}
    filters = [word for word in words if not word.startswith("-")]
    for app in call.device.screen.apps.values():
        if (("-3" in flags) and app.system) or (("-s" in flags) and not app.system):
            continue
        if all(part in app.package for part in filters):
            path = f"/data/app/{app.package}/base.apk=" if "-f" in flags else ""
            call.say(f"package:{path}{app.package}")
    return 0


def _list_features(call: Call, _: Sequence[str]) -> int:
    return call.say("feature:android.hardware.touchscreen\nfeature:android.hardware.wifi")


def _list_users(call: Call, _: Sequence[str]) -> int:
    return call.say("Users:\n\tUserInfo{0:Owner:c13} running")


_LISTS = {"packages": _list_packages, "features": _list_features, "users": _list_users}


def _uninstall(call: Call, package: str) -> int:
    app = call.device.screen.apps.get(package)
    if app is None or app.system:
        call.say("Failure [DELETE_FAILED_INTERNAL_ERROR]" if app is None else "Failure [DELETE_FAILED_DEVICE_POLICY]")
        return 1
    call.effect("uninstall", package=package)
    call.device.remove_app(package)
    return call.say("Success")


def _clear(call: Call, package: str) -> int:
    if package not in call.device.screen.apps:
        call.say("Failed")
        return 1
    call.effect("clear_app", package=package)
    call.device.screen.end(package)
    return call.say("Success")


PROGRAMS: Mapping[str, Program] = {"cmd": _cmd, "pm": _pm}
