"""How the simulated phone misbehaves, and who waits for that to change."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Seconds = Annotated[float, Field(ge=0, le=3600)]


class Behaviour(BaseModel):
    """What the phone does with connections and commands; the defaults are a healthy phone."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    authorized: bool = True
    """False never accepts the computer's key: `unauthorized`."""
    present: bool = True
    """False vanishes: connections are reset and none is accepted."""
    boot: Literal["completed", "booting"] = "completed"
    """`booting` has adb but not yet Android's services, as for the first minute after power-on: `sys.boot_completed` is
    empty and programs print `Can't find service`. It lasts until it is changed."""
    shell_v2: bool = True
    """False speaks only the older shell protocol, without exit codes, as Android 6 does."""
    lock: Literal["none", "swipe", "secure"] = "none"
    """Shows a lock screen: `swipe` ends with a swipe up, `secure` only by changing this; apps start behind it."""
    rotation: Literal[0, 1, 2, 3] = 0
    """Quarter turns of the screen; 1 and 3 are landscape, where width and height change places."""
    displays: Literal[1, 2] = 1
    """With 2, `screencap` without `-d ID` warns in three lines before its picture, as foldable phones do; the second shows nothing."""
    secure_window: bool = False
    """True has a window in front that may not be pictured: screenshots are black."""
    answer: Literal["normal", "hang_open", "hang", "black_hole", "lost", "vanish", "drip"] = "normal"
    """`hang_open` never accepts a command, `hang` accepts and never runs it, `black_hole` stops reading and writing
    without closing anything, `lost` runs it and drops the connection before answering, `vanish` does the same and is
    not `present` from then on, `drip` runs it and then sends one byte after another without end."""
    latency_seconds: Seconds = 0
    """Between a command line's effects and its answer."""
    drip_seconds: Seconds = 0
    """With more than 0, output comes one byte at a time, this far apart."""
    pace: float = Field(default=0, ge=0, le=10)
    """How long programs take, as a part of what they take on a phone: 1 is as long, 0 is no time."""
    slow_seconds: dict[str, Seconds] = {}
    """How much longer each of these programs takes, by name; what it does happens at the beginning."""
    screencap: Literal["normal", "garbage", "truncated", "warned"] = "normal"
    """`warned` puts the line that phones with several displays print before the picture."""
    ui_dump: Literal["normal", "animated", "never_idle"] = "normal"
    """`never_idle` prints what `uiautomator dump` does while something on the screen keeps moving; `animated` does so
    unless it is asked for less with `--compressed`."""
    ui_dumps_without_window: int = Field(default=0, ge=0)
    """How many of the next dumps find no window, as between two apps."""
    ui_dump_noise: Literal["none", "invalid_xml", "stack_trace"] = "none"
    """`invalid_xml` shows an element with characters that XML forbids, written as Android writes them; `stack_trace`
    prints what phones of some vendors do before a good dump."""
    vendor_noise: bool = False
    """True has every Java program print a stack trace of the vendor's before it begins, also when all is well."""
    hardware_keys: bool = True
    """False has no keys but the screen's: `monkey` does not run unless it is told to press none."""
    user: int = Field(default=0, ge=0, le=9999)
    """Whose screen it shows."""
    closed_users: tuple[int, ...] = ()
    """Further users, as of a secure folder, that adb may not look into: what asks about all users fails."""
    knows_cmd: bool = True
    """False has no program `cmd`, as before Android 7."""
    several_icons: bool = False
    """Every app has two icons, so that Android does not say which of its activities a launcher opens."""
    injects_input: bool = True
    """False refuses `input`, as some vendors do until a developer option is on."""
    install_refusal: str | None = None
    """What every install is refused with, such as `INSTALL_FAILED_USER_RESTRICTED: Install canceled by user`."""
    old_installer: bool = False
    """True prints `pkg: FILE` first, exits 0 whatever happened, and replaces nothing without `-r`, as Android 6 does."""
    writes_files: bool = True
    """False refuses to write any file, as a phone with full storage does."""
    shift_px: int = Field(default=0, ge=-1000, le=1000)
    """How much further down every app's layout is, except the launcher's."""


def read_changes(words: Sequence[str]) -> dict[str, Any]:
    """Changes as they are written on a command line, such as `boot=booting`, `shell_v2=false` or `slow_seconds={"input": 1}`.

    Raises:
        ValueError: One is no change of a behaviour; the sentence says which are.
    """
    changes: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in Behaviour.model_fields:
            raise ValueError(f"{word!r} is no NAME=VALUE with a name of {', '.join(Behaviour.model_fields)}")
        try:
            changes[name] = json.loads(value)
        except ValueError:
            changes[name] = value
    try:
        Behaviour.model_validate(changes)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None
    return changes


def described() -> str:
    """Every field with its default and meaning, one paragraph each."""
    return "\n\n".join(
        f"{name}={json.dumps(field.get_default(call_default_factory=True))}: {' '.join((field.description or '').split())}"
        for name, field in Behaviour.model_fields.items()
    )


class Control:
    """Holds the behaviour and wakes whoever waits for it to change."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self._changed = asyncio.Event()

    def change(self, **changes: Any) -> Behaviour:
        """Change some fields.

        Raises:
            ValidationError: No such field, or not a value of it.
        """
        self.behaviour = Behaviour.model_validate(self.behaviour.model_dump() | changes)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return self.behaviour

    async def until(self, holds: Callable[[Behaviour], bool]) -> None:
        """Return once the condition holds; at once when it does."""
        while not holds(self.behaviour):
            await self._changed.wait()
