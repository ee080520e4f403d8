"""The `input` program: fingers, keys and text, each logged with what it met."""

from collections.abc import Mapping, Sequence

from ops.simulators.phone.keys import key_name
from ops.simulators.phone.programs.call import Call, Program
from ops.simulators.phone.screen import Touch
from ops.simulators.phone.views import View

_SWIPE_MS = 300
_UNLOCKS_PX = 300
_SOURCES = ("touchscreen", "keyboard", "touchpad", "mouse", "dpad")
_SELECT_ALL = ["CTRL_LEFT", "A"]


async def _input(call: Call) -> int:
    if not call.device.behaviour.injects_input:
        return call.fail(
            "java.lang.SecurityException: Injecting input events requires the caller to have INJECT_EVENTS"
        )
    words = call.arguments[1:] if call.arguments[:1] and call.arguments[0] in _SOURCES else call.arguments
    if words[:1] == ["-d"]:
        if words[1:2] != ["0"]:
            return 0  # what happens on a further display is not simulated
        words = words[2:]
    match words:
        case ["tap", *numbers] if len(numbers) == 2 and _are_numbers(numbers):  # noqa: PLR2004  # x and y
            exit_code = _tap(call, *map(int, numbers))
        case ["swipe" | "draganddrop", *numbers] if len(numbers) in (4, 5) and _are_numbers(numbers):
            exit_code = await _swipe(call, list(map(int, numbers)))
        case ["text", text]:
            exit_code = _type(call, text)
        case ["keyevent", *codes] if codes:
            exit_code = _press(call, [code for code in codes if code != "--longpress"])
        case ["keycombination", *codes] if len(codes) > 1:
            exit_code = _press_together(call, codes)
        case _:
            exit_code = call.fail(f"Error: Invalid arguments for command: {' '.join(words[:1])}")
    return exit_code


def seen(view: View | None, package: str) -> dict[str, str] | None:
    """What the log says about a view that was hit or typed into; None when there was none."""
    if view is None:
        return None
    return {
        "package": package,
        "class": view.kind,
        "resource_id": view.resource_id,
        "text": "" if view.is_field else view.text,
        "description": view.description,
    }


def _tap(call: Call, x: int, y: int) -> int:
    _put_finger(call, "tap", Touch(x, y, x, y), x=x, y=y)
    return 0


async def _swipe(call: Call, numbers: list[int]) -> int:
    x1, y1, x2, y2, *given = numbers
    duration_ms = given[0] if given else _SWIPE_MS
    touch = Touch(x1, y1, x2, y2, duration_ms)
    _put_finger(call, "swipe", touch, x1=x1, y1=y1, x2=x2, y2=y2, duration_ms=duration_ms)
    await call.last(duration_ms / 1000)
    return 0


def _put_finger(call: Call, action: str, touch: Touch, **facts: int) -> None:
    call.device.root()  # places what moved since
    screen = call.device.screen
    call.effect(action, **facts, hit=seen(screen.hit(touch.x1, touch.y1), screen.package))
    screen.touch(touch)
    if call.device.behaviour.lock == "swipe" and screen.awake and touch.y1 - touch.y2 >= _UNLOCKS_PX:
        call.device.control.change(lock="none")


def _type(call: Call, text: str) -> int:
    if not text.isascii():
        return call.fail("java.lang.NullPointerException: Attempt to get length of null array")
    screen = call.device.screen
    # Android's `input text` has no way to write a literal `%s`
    arrived = text.replace("%s", " ")
    call.effect("text", text=arrived, field=seen(screen.field(), screen.package))
    screen.type_text(arrived)
    return 0


def _press(call: Call, codes: Sequence[str]) -> int:
    names = [key_name(code) for code in codes]
    call.effect("key", keys=names)
    for name in names:
        call.device.screen.press(name)
    return 0


def _press_together(call: Call, codes: Sequence[str]) -> int:
    names = [key_name(code) for code in codes]
    call.effect("key_combination", keys=names)
    if names == _SELECT_ALL:
        call.device.screen.select_all()
    return 0


def _are_numbers(words: Sequence[str]) -> bool:
    return all(word.isascii() and word.isdigit() for word in words)


PROGRAMS: Mapping[str, Program] = {"input": _input}
