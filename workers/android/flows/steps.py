"""What a flow file may say: elements as selectors with alternatives, and the steps that use them.

package = "com.app"                           the app

[elements]
field = [{ id = "input" }, { class_name = "EditText" }]     the first that finds anything counts

[flows.ask]
about = "One sentence."
inputs = ["question"]
steps = [
  { bring_to_front = true },                  start the app unless it is in front, and wait for it
  { tap = "field" },                          wait for it, touch its middle
  { type = "question" },                      an input, as one line, into what has the focus
  { press = "ENTER" },
  { wait_for = "answer" },                    or `gone = true`
  { wait_until_stable = "answer", unless = "spinner" },
  { run = { action = "screenshot" } },        any action; what it answers is part of the flow's answer
  { capture = { text = { element = "answer" } } },
]
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, field_validator, model_validator

from contracts.android.actions import SingleAction
from contracts.android.fields import MAX_TIMEOUT_SECONDS, Package, Selector
from contracts.android.keys import Key

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Seconds = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)]

_action: TypeAdapter[SingleAction] = TypeAdapter(Annotated[SingleAction, Field(discriminator="action")])


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BringToFront(_Part):
    """Start the app unless it is in front already."""

    bring_to_front: Literal[True]
    within_seconds: Seconds = 20.0


class Tap(_Part):
    """Wait for an element that takes touches, and touch it."""

    tap: Name
    within_seconds: Seconds = 10.0
    optional: bool = False
    """Whether it is no error when there is none."""


class Type(_Part):
    """Type an input, as one line, into what has the focus."""

    type: Name


class Press(_Part):
    """Press a key."""

    press: Key


class WaitFor(_Part):
    """Wait until an element is there, or is gone."""

    wait_for: Name
    gone: bool = False
    within_seconds: Seconds = 10.0
    optional: bool = False


class WaitUntilStable(_Part):
    """Wait until what an element says has stayed the same for a while."""

    wait_until_stable: Name
    unless: Name | None = None
    """An element that says that more is coming."""
    for_seconds: Seconds = 1.5
    within_seconds: Seconds = 120.0


class Run(_Part):
    """Run an action; what it answers is part of the flow's answer."""

    run: SingleAction

    @field_validator("run", mode="before")
    @classmethod
    def _is_an_action(cls, value: object) -> object:
        return _action.validate_python(value)


class Captured(_Part):
    """What to take from the screen."""

    element: Name
    form: Literal["text", "texts", "records"] = Field(default="text", alias="as")
    """`text` joins what the elements say, `texts` lists it, `records` makes an object of each element."""
    fields: dict[Name, Name] = Field(default_factory=dict)
    """Of a record: its members, and the element within it whose words each is."""

    @model_validator(mode="after")
    def _fields_go_with_records(self) -> "Captured":
        if (self.form == "records") is not bool(self.fields):
            raise ValueError('`fields` goes with as = "records"')
        return self


class Capture(_Part):
    """Take texts from the screen, scrolling down for more."""

    capture: dict[Name, Captured] = Field(min_length=1)
    scrolls: int = Field(default=0, ge=0, le=50)
    """How often to scroll at the most; it ends when a scroll brings nothing new."""


Step = BringToFront | Tap | Type | Press | WaitFor | WaitUntilStable | Run | Capture


class Flow(_Part):
    """One thing to do in an app."""

    about: str
    inputs: tuple[Name, ...] = ()
    steps: tuple[Step, ...] = Field(min_length=1)


class App(_Part):
    """One app: its elements and its flows."""

    package: Package
    elements: dict[Name, Annotated[tuple[Selector, ...], Field(min_length=1)]]
    flows: dict[Name, Flow] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_exist(self) -> "App":
        for name, flow in self.flows.items():
            for number, step in enumerate(flow.steps, start=1):
                for element in _elements_of(step):
                    if element not in self.elements:
                        raise ValueError(f"flows.{name}, step {number}: there is no element {element!r}")
                if isinstance(step, Type) and step.type not in flow.inputs:
                    raise ValueError(f"flows.{name}, step {number}: there is no input {step.type!r}")
        return self


def describe(step: Step) -> str:
    """A step in a few words, for errors: what it does and the name that it does it to."""
    (name, value), *_ = step.model_dump(exclude_unset=True, by_alias=True).items()
    return f"{name} {_brief(value)}"


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        return str(value["action"]) if "action" in value else ", ".join(value)
    return str(value)


def _elements_of(step: Step) -> Iterator[str]:
    match step:
        case Tap():
            yield step.tap
        case WaitFor():
            yield step.wait_for
        case WaitUntilStable():
            yield step.wait_until_stable
            if step.unless is not None:
                yield step.unless
        case Capture():
            for captured in step.capture.values():
                yield captured.element
                yield from captured.fields.values()
        case _:
            return
