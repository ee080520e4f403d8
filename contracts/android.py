"""What a phone can be asked to do: the typed actions of an `android.execute` command, and which of them may run twice.

On the wire a payload is flat, `{"action": "tap", "x": 10, "y": 20, "device": "…"}`. A payload may instead carry a line
as one would give it to `adb`, `{"command": "shell input tap 10 20"}`; it is parsed into an action on the way in, so
that a model always dumps as an action and equal requests have equal canonical JSON.
"""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    RootModel,
    StringConstraints,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import override

from contracts import android_shell

DEFAULT_TIMEOUT_SECONDS = 30.0
MAX_TIMEOUT_SECONDS = 300.0
MAX_TEXT_CHARACTERS = 4000

Coordinate = Annotated[int, Field(strict=True, ge=0, le=16383, description="Pixels from the top left of the screen.")]
DurationMs = Annotated[int, Field(strict=True, ge=1, le=60_000)]
Serial = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}$")]
Package = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+$", max_length=255)]
Activity = Annotated[str, StringConstraints(pattern=r"^\.?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=255)]
PropertyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$", max_length=128)]


def _is_none(value: object) -> bool:
    return value is None


class _Target(BaseModel):
    """Where and for how long; common to every action."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Serial | None = Field(
        default=None,
        exclude_if=_is_none,
        description="Serial number of the phone; without one, any healthy phone.",
    )
    timeout_seconds: float = Field(
        default=DEFAULT_TIMEOUT_SECONDS,
        gt=0,
        le=MAX_TIMEOUT_SECONDS,
        description="How long the phone may take to answer.",
    )


class _Effect(_Target):
    """Changes something each time it runs, so it must never run twice."""

    @property
    def repeatable(self) -> bool:
        """Whether running it again after a lost answer does no harm."""
        return False


class _Repeatable(_Target):
    """Reads, or sets what is already set the second time."""

    @property
    def repeatable(self) -> bool:
        """Whether running it again after a lost answer does no harm."""
        return True


class Tap(_Effect):
    """Touch one point."""

    action: Literal["tap"]
    x: Coordinate
    y: Coordinate


class Swipe(_Effect):
    """Drag from (x1, y1) to (x2, y2)."""

    action: Literal["swipe"]
    x1: Coordinate
    y1: Coordinate
    x2: Coordinate
    y2: Coordinate
    duration_ms: DurationMs = 300


class LongPress(_Effect):
    """Touch one point and hold it."""

    action: Literal["long_press"]
    x: Coordinate
    y: Coordinate
    duration_ms: DurationMs = 800


class PressKey(_Effect):
    """Press one key, by Android's name for it (`HOME`, `BACK`, `ENTER`) or its number."""

    action: Literal["key"]
    key: Annotated[str, StringConstraints(pattern=r"^([A-Z][A-Z0-9_]{0,63}|[0-9]{1,4})$")]

    @field_validator("key", mode="before")
    @classmethod
    def _one_spelling(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return value.upper().removeprefix("KEYCODE_") if isinstance(value, str) else value


class TypeText(_Effect):
    """Type into whatever has the focus, character for character."""

    action: Literal["text"]
    text: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARACTERS)]

    @field_validator("text")
    @classmethod
    def _no_nul(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("text must not contain the NUL character")
        return value


class TakeScreenshot(_Repeatable):
    """What is on the screen, as a PNG artifact."""

    action: Literal["screenshot"]


class GetProperty(_Repeatable):
    """One system property, or all of them."""

    action: Literal["getprop"]
    name: PropertyName | None = Field(default=None, exclude_if=_is_none)


class GetBattery(_Repeatable):
    """Charge, temperature and power source."""

    action: Literal["battery"]


class GetCurrentApp(_Repeatable):
    """Package and activity that have the focus."""

    action: Literal["current_app"]


class StartApp(_Repeatable):
    """Bring an app to the front: the given activity, or the one its launcher icon opens."""

    action: Literal["start_app"]
    package: Package
    activity: Activity | None = Field(default=None, exclude_if=_is_none)


class Wake(_Repeatable):
    """Switch the screen on."""

    action: Literal["wake"]


class GetStatus(_Repeatable):
    """Model, Android version, battery, screen and current app in one answer."""

    action: Literal["status"]


class RunShell(_Target):
    """Run one allow-listed program on the phone; `contracts.android_shell` has the list."""

    action: Literal["shell"]
    argv: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS)], ...],
        Field(min_length=1, max_length=64),
    ]

    @field_validator("argv")
    @classmethod
    def _allowed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        android_shell.check(value)
        return value

    @property
    def repeatable(self) -> bool:
        """Whether running it again after a lost answer does no harm."""
        return android_shell.check(self.argv)


Action = (
    Tap
    | Swipe
    | LongPress
    | PressKey
    | TypeText
    | TakeScreenshot
    | GetProperty
    | GetBattery
    | GetCurrentApp
    | StartApp
    | Wake
    | GetStatus
    | RunShell
)

_action: TypeAdapter[Action] = TypeAdapter(Annotated[Action, Field(discriminator="action")])


def action_from_command(line: str) -> Action:
    """The action that a line as given to `adb` asks for.

    Raises:
        ValueError: It is not such a line, or not an allowed one; the message names the rule.
    """
    return _action.validate_python(android_shell.fields_from_line(line))


class CommandLine(_Target):
    """The other way to ask: a line as one would give it to `adb`."""

    command: Annotated[str, StringConstraints(min_length=1, max_length=2 * MAX_TEXT_CHARACTERS)] = Field(
        examples=["shell getprop ro.product.model", "shell input tap 10 20"]
    )

    @field_validator("command")
    @classmethod
    def _parses(cls, value: str) -> str:
        action_from_command(value)
        return value


class AndroidExecute(RootModel[Annotated[Action, Field(discriminator="action")]]):
    """Payload of `android.execute`: one action on one phone."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _from_command(cls, data: object) -> object:
        if not isinstance(data, dict) or "command" not in data:
            return data
        line = CommandLine.model_validate(data)
        target = {"device": line.device, "timeout_seconds": line.timeout_seconds}
        return action_from_command(line.command).model_copy(update=target)

    @classmethod
    @override
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Both forms; pydantic cannot see what `_from_command` accepts."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        if handler.mode == "validation" and "oneOf" in schema:
            actions = {"oneOf": schema.pop("oneOf"), "discriminator": schema.pop("discriminator")}
            schema["anyOf"] = [actions, handler(CommandLine.__pydantic_core_schema__)]
        return schema

    @property
    def device(self) -> str | None:
        """Serial number of the phone; None means any healthy one."""
        return self.root.device

    @property
    def timeout_seconds(self) -> float:
        """How long the phone may take to answer, in seconds."""
        return self.root.timeout_seconds

    @property
    def repeatable(self) -> bool:
        """Whether running it again after a lost answer does no harm."""
        return self.root.repeatable
