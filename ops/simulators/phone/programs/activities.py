"""Starting and ending apps, and sending broadcasts: the programs `am`, `monkey` and `pidof`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from ops.simulators.phone.programs.call import Call, Program
from ops.simulators.phone.programs.keyboards import take_broadcast

_TAKE_A_VALUE = {"-a", "-d", "-n", "-p", "-c", "-t", "-f", "--user", "--receiver-permission"}
_EXTRAS = {"--es", "--ei", "--ez", "--el", "--ef"}
_VIEW = "android.intent.action.VIEW"
_FIRST_PID = 4000
_NO_ACTIVITIES = 252
_NO_KEYS = 251


@dataclass(slots=True)
class _Intent:
    """What stood on an `am` command line."""

    options: dict[str, str] = field(default_factory=dict)
    extras: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, words: Sequence[str]) -> "_Intent":
        intent = cls()
        left = list(words)
        while left:
            word = left.pop(0)
            if word in _EXTRAS and len(left) > 1:
                name = left.pop(0)
                intent.extras[name] = left.pop(0)
            elif word in _TAKE_A_VALUE and left:
                intent.options[word] = left.pop(0)
            elif not word.startswith("-"):
                intent.rest.append(word)
        return intent

    @override
    def __str__(self) -> str:
        names = {"-a": "act", "-c": "cat", "-d": "dat", "-p": "pkg", "-n": "cmp"}
        facts = [f"{names[name]}={value}" for name, value in self.options.items() if name in names]
        return " ".join(["Intent {", *facts, *(["(has extras)"] if self.extras else []), "}"])


async def _am(call: Call) -> int:
    intent = _Intent.read(call.arguments[1:])
    match call.arguments[:1]:
        case ["start" | "start-activity"]:
            return _am_start(call, intent)
        case ["force-stop"] if len(intent.rest) == 1:
            call.effect("stop_app", package=intent.rest[0])
            call.device.log.write("I", "ActivityManager", f"Force stopping {intent.rest[0]}")
            call.device.screen.end(intent.rest[0])
            return 0
        case ["get-current-user"]:
            return call.say(str(call.device.behaviour.user))
        case ["broadcast"]:
            call.say(f"Broadcasting: {intent}")
            take_broadcast(call, intent.options.get("-a", ""), intent.extras, intent.options.get("-p"))
            return call.say("Broadcast completed: result=0")
        case _:
            return call.fail("Error: unknown command; the simulated phone knows `am start|force-stop|broadcast`")


def _am_start(call: Call, intent: _Intent) -> int:
    component = intent.options.get("-n") or next((word for word in intent.rest if word.count("/") == 1), None)
    call.say(f"Starting: {intent}" if intent.options else f"Starting: Intent {{ cmp={component} }}")
    if component is not None and component.count("/") == 1:
        package, activity = component.split("/")
        if _start(call, package, activity):
            return 0
        return call.fail(f"Error type 3\nError: Activity class {{{component}}} does not exist.", 1)
    url = intent.options.get("-d") or next((word for word in intent.rest if "://" in word), "")
    shows = intent.options.get("-a", _VIEW) == _VIEW and url.startswith(("http://", "https://"))
    if shows and call.device.screen.open_address(url, package=intent.options.get("-p")):
        call.effect("open_address", url=url)
        return 0
    return call.fail(f"Error: Activity not started, unable to resolve {intent}", 1)


async def _monkey(call: Call) -> int:
    words = call.arguments
    package = words[words.index("-p") + 1] if "-p" in words[:-1] else ""
    app = call.device.screen.apps.get(package)
    if app is None or not app.has_icon:
        _say_arguments(call)
        call.say("** No activities found to run, monkey aborted.")
        return _NO_ACTIVITIES
    if not call.device.behaviour.hardware_keys and "--pct-syskeys" not in words:
        _say_arguments(call)
        return call.fail("** SYS_KEYS has no physical keys but with factor 2.0%.", _NO_KEYS)
    _start(call, package, None)
    return call.say("Events injected: 1")


def _say_arguments(call: Call) -> None:
    for word in call.arguments:
        call.say(f"  bash arg: {word}")


def _start(call: Call, package: str, activity: str | None) -> bool:
    app = call.device.screen.apps.get(package)
    if app is None or activity not in (None, app.activity, package + app.activity):
        return False
    call.effect("start_app", package=package)
    call.device.log.write("I", "ActivityTaskManager", f"START u0 {{cmp={app.component}}} from uid 2000")
    return call.device.screen.start(package, activity)


async def _pidof(call: Call) -> int:
    apps = list(call.device.screen.apps)
    pids = [str(_FIRST_PID + apps.index(word)) for word in call.arguments if word in apps]
    if pids:
        call.say(" ".join(pids))
    return 0 if pids else 1


PROGRAMS: Mapping[str, Program] = {"am": _am, "monkey": _monkey, "pidof": _pidof}
