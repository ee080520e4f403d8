"""The payload of `android.execute`: one typed action, or a line as one would give it to `adb`.

On the wire a payload is flat, `{"action": "tap", "x": 10, "y": 20, "device": "…"}`. A payload may instead carry a line
as one would give it to `adb`, `{"command": "shell input tap 10 20"}`; it is parsed into an action on the way in, so
that a model always dumps as an action and equal requests have equal canonical JSON.
"""

from typing import Annotated, get_args

from pydantic import (
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

from contracts.android import lines
from contracts.android.actions import Action, Batch, Install, Push
from contracts.android.fields import MAX_TEXT_CHARACTERS, Target
from contracts.android.screen_actions import TypeText
from contracts.faults import fault

ACTIONS = tuple(get_args(action.model_fields["action"].annotation)[0] for action in get_args(Action))
"""What an action may be called."""
_action: TypeAdapter[Action] = TypeAdapter(Annotated[Action, Field(discriminator="action")])


def action_from(fields: object) -> Action:
    """The action that these fields describe.

    Args:
        fields: As on the wire.

    Raises:
        ValueError: They describe none; the message names the field and its rule.
    """
    return _action.validate_python(fields)


def action_from_command(line: str) -> Action:
    """The action that a line as given to `adb` asks for.

    Raises:
        ValueError: It is not such a line, or not an allowed one; the message names the rule.
    """
    return action_from(lines.fields_from_line(line))


class CommandLine(Target):
    """The other way to ask: a line as one would give it to `adb`."""

    command: Annotated[str, StringConstraints(min_length=1, max_length=2 * MAX_TEXT_CHARACTERS)] = Field(
        examples=["shell getprop ro.product.model", "adb -s SIMPHONE0001 shell input tap 10 20"]
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
        if isinstance(data, dict) and not {"action", "command"} & data.keys():
            raise fault(
                "action", f"is required, as one of {', '.join(sorted(ACTIONS))}; or `command`, a line as for adb"
            )
        if not isinstance(data, dict) or "command" not in data:
            return data
        line = CommandLine.model_validate(data)
        action = action_from_command(line.command)
        device = line.device or action.device
        if action.device not in (None, device):
            raise ValueError(f"the line names the phone {action.device} and `device` names {device}; give one of them")
        if device is not None and line.tag is not None:
            raise ValueError("give either device or tag, not both")
        return action.model_copy(update={"device": device, "tag": line.tag, "timeout_seconds": line.timeout_seconds})

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
        """Serial number of the phone; None means any healthy one, or any that has the tag."""
        return self.root.device

    @property
    def tag(self) -> str | None:
        """Tag that the phone must have; None means that it needs none."""
        return self.root.tag

    @property
    def timeout_seconds(self) -> float:
        """How long the phone may take for all of it, in seconds."""
        return self.root.timeout_seconds

    @property
    def artifacts(self) -> tuple[str, ...]:
        """The sender's artifacts that it puts on the phone, by their sha256."""
        actions = self.root.actions if isinstance(self.root, Batch) else (self.root,)
        return tuple(one for action in actions if isinstance(action, Install | Push) for one in action.sources)

    @property
    def secret_is_gone(self) -> bool:
        """Whether it should type a secret that is not in it any more."""
        actions = self.root.actions if isinstance(self.root, Batch) else (self.root,)
        return any(isinstance(action, TypeText) and action.text is None for action in actions)

    @property
    def stoppable(self) -> bool:
        """Whether it can be stopped while it runs."""
        return self.root.stoppable

    @property
    def repeatable(self) -> bool:
        """Whether running it again after a lost answer does no harm."""
        return self.root.repeatable
