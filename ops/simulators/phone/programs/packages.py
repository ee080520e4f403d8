"""The package manager: `pm` and `cmd package`; what installs apps is in `installs`."""

from collections.abc import Mapping, Sequence

from ops.simulators.phone.programs import installs
from ops.simulators.phone.programs.call import Call, Program

_CHOOSER = "android/com.android.internal.app.ResolverActivity"


async def _pm(call: Call) -> int:
    return await _package(call, call.arguments)


async def _cmd(call: Call) -> int:
    if not call.device.behaviour.knows_cmd:
        return call.fail("/system/bin/sh: cmd: not found", 127)
    match call.arguments:
        case ["package", *words]:
            return await _package(call, words)
        case [service, *_]:
            return call.fail(f"cmd: Can't find service: {service}", 20)
        case _:
            return call.fail("cmd: No service specified; use -l to list all running services.", 20)


async def _package(call: Call, words: Sequence[str]) -> int:
    user, words = _without_user(words)
    closed = call.device.behaviour.closed_users
    asks_all = user in (None, "all") and (
        words[:1] in (["install"], ["install-create"], ["uninstall"]) or words[:2] == ["list", "packages"]
    )
    if closed and (asks_all or user in [str(number) for number in closed]):
        return _not_permitted(call, words[0], user=closed[0])
    if user not in (None, "all", "0", str(call.device.behaviour.user)):
        return call.fail(f"Error: java.lang.IllegalArgumentException: Invalid user {user}", 1)
    return await _run_verb(call, words)


async def _run_verb(call: Call, words: list[str]) -> int:
    match words:
        case ["resolve-activity" | "query-activities" as verb, *rest]:
            return _find_activities(call, rest, several=verb == "query-activities")
        case [verb, *rest] if verb in installs.VERBS:
            return await installs.VERBS[verb](call, rest)
        case ["list", what, *rest] if what in _LISTS:
            return _LISTS[what](call, rest)
        case ["path" | "uninstall" | "clear" as verb, *_, package]:
            return {"path": _path, "uninstall": _uninstall, "clear": _clear}[verb](call, package)
        case _:
            return call.fail("Error: unknown command; the simulated phone knows `pm list|path|install|uninstall|clear`")


def _without_user(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The user that `--user` names, and the other words."""
    left = list(words)
    if "--user" not in left[:-1]:
        return None, left
    place = left.index("--user")
    user = left[place + 1]
    return user, left[:place] + left[place + 2 :]


def _not_permitted(call: Call, verb: str, *, user: int) -> int:
    return call.fail(
        f"\nException occurred while executing '{verb}':\n"
        f"java.lang.SecurityException: Shell does not have permission to access user {user}\n"
        "\tat com.android.server.am.ActivityManagerService.handleIncomingUser(ActivityManagerService.java:12345)\n"
        "\tat android.os.ShellCommand.exec(ShellCommand.java:38)"
    )


def _find_activities(call: Call, words: Sequence[str], *, several: bool) -> int:
    app = call.device.screen.apps.get(words[-1]) if words else None
    if app is None or not app.has_icon:
        return call.say("No activity found" if not several else "No activities found")
    found = [app.component]
    if call.device.behaviour.several_icons:
        found = [app.component, f"{app.package}/.Other"] if several else [_CHOOSER]
    if several:
        call.say(f"{len(found)} activities found:")
    for component in found:
        call.say(f"  priority=0 preferredOrder=0 match=0x108000 specificIndex=-1 isDefault=false\n  {component}")
    return 0


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
    behaviour = call.device.behaviour
    numbers = sorted({0, behaviour.user, *behaviour.closed_users})
    return call.say(
        "\n".join(
            [
                "Users:",
                *(f"\tUserInfo{{{number}:{'Owner' if number == 0 else 'User'}:c13}} running" for number in numbers),
            ]
        )
    )


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
