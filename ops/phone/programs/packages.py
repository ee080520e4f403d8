"""The package manager: `pm` and `cmd package`, with installs from a pushed file or from the adb connection."""

import asyncio
from collections.abc import Mapping, Sequence

from ops.phone.apk import NotAnApk, read_apk
from ops.phone.apps.app import App
from ops.phone.files import FileError
from ops.phone.programs.call import Call, Program

_INSTALL_SECONDS = 0.05


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
        case ["install", *rest]:
            return await _install(call, rest)
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


async def _install(call: Call, words: Sequence[str]) -> int:
    left = list(words)
    size_bytes: int | None = None
    paths = []
    while left:
        word = left.pop(0)
        if word == "-S" and left and left[0].isdigit():
            size_bytes = int(left.pop(0))
        elif word in ("-i", "--user", "--abi", "--pkg", "--install-location") and left:
            left.pop(0)
        elif not word.startswith("-") or word == "-":
            paths.append(word)
    if size_bytes is not None:
        content = await call.stdin.read_exactly(size_bytes)
        if len(content) < size_bytes:
            return call.fail("Failure [INSTALL_FAILED_INVALID_APK: the stream ended early]", 1)
    elif len(paths) == 1:
        try:
            content = b"".join(call.device.files.read(paths[0]).chunks())
        except FileError:
            return call.fail(f"Error: Unable to open file: {paths[0]}\nConsider using a file under /data/local/tmp/", 1)
    else:
        return call.fail("Error: must either specify a package size or an APK file", 1)
    return await _take_apk(call, content)


async def _take_apk(call: Call, content: bytes) -> int:
    try:
        package, name = await asyncio.to_thread(read_apk, content)
    except NotAnApk as error:
        call.say(f"Failure [INSTALL_PARSE_FAILED_NOT_APK: {error}]")
        return 1
    present = call.device.screen.apps.get(package)
    if present is not None and present.system:
        call.say(f"Failure [INSTALL_FAILED_UPDATE_INCOMPATIBLE: {package} is part of the simulated phone]")
        return 1
    call.effect("install", package=package, size_bytes=len(content))
    await call.last(_INSTALL_SECONDS)
    call.device.screen.apps[package] = present or App(package, name)
    call.device.log.write("I", "PackageManager", f"installed {package}")
    return call.say("Success")


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
