"""The typed actions on a phone's screen: touching, typing, finding, waiting, and pictures of it."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from typing_extensions import override

from contracts.android.fields import (
    MAX_TIMEOUT_SECONDS,
    Coordinate,
    DurationMs,
    Effect,
    Repeatable,
    Selector,
    Text,
    is_false,
    is_none,
)
from contracts.android.keys import Key
from contracts.schema_rules import not_null, not_together
from contracts.whole_numbers import WHOLE

MAX_RECORD_SECONDS = 180
_RECORD_MARGIN_SECONDS = 15


class Tap(Effect):
    """Touch one point."""

    action: Literal["tap"]
    x: Coordinate
    y: Coordinate


class Swipe(Effect):
    """Drag from (x1, y1) to (x2, y2)."""

    action: Literal["swipe"]
    x1: Coordinate
    y1: Coordinate
    x2: Coordinate
    y2: Coordinate
    duration_ms: DurationMs = 300


class LongPress(Effect):
    """Touch one point and hold it."""

    action: Literal["long_press"]
    x: Coordinate
    y: Coordinate
    duration_ms: DurationMs = 800


class PressKey(Effect):
    """Press one key, by Android's name for it (`HOME`, `BACK`, `ENTER`) or its number."""

    action: Literal["key"]
    key: Key


class TypeText(Effect):
    """Type into whatever has the focus, character for character.

    ASCII needs nothing on the phone. Anything else needs the ADBKeyboard app installed; the input method that was in
    use is set again afterwards.
    """

    model_config = ConfigDict(json_schema_extra={**not_together("device", "tag"), **not_null("text")})

    action: Literal["text"]
    text: Text | None = Field(repr=False, description="What to type; null only where a secret was taken out of it.")
    secret: bool = Field(
        default=False,
        exclude_if=is_false,
        strict=True,
        description="Kept nowhere but in the broker, and there until it has run: records, results, logs and dead letters have "
        "null in its place. It does not count when two bodies under one id are compared.",
    )

    @model_validator(mode="after")
    def _has_text(self) -> "TypeText":
        if self.text is None and not self.secret:
            raise ValueError("text: must be a string")
        return self


class ClearText(Repeatable):
    """Empty the text field that has the focus."""

    action: Literal["clear_text"]


class TapOn(Effect):
    """Find one element of the screen, waiting for it if need be, and touch its middle."""

    action: Literal["tap_on"]
    selector: Selector

    @property
    @override
    def stoppable(self) -> bool:
        """Whether it can be stopped while it runs: until it has found what it touches."""
        return True


class Find(Repeatable):
    """The elements of the screen that fit; none is an answer too."""

    action: Literal["find"]
    selector: Selector


class WaitFor(Repeatable):
    """Wait, up to `timeout_seconds`, until an element is on the screen, or is gone from it."""

    action: Literal["wait_for"]
    selector: Selector
    gone: bool = Field(default=False, strict=True, description="Wait until there is none any more.")


class DumpScreen(Repeatable):
    """The screen as a tree of elements: the useful ones as a list, all of it as an XML artifact."""

    action: Literal["ui_dump"]


class TakeScreenshot(Repeatable):
    """What is on the screen, as a PNG artifact."""

    action: Literal["screenshot"]
    display: Annotated[int, Field(strict=True, ge=0, le=15), WHOLE] | None = Field(
        default=None,
        exclude_if=is_none,
        description="Which of the phone's displays, counted from 0 as it lists them; without one, its first.",
    )


class RecordScreen(Repeatable):
    """What happens on the screen, as an MP4 artifact."""

    action: Literal["record"]
    seconds: Annotated[int, Field(strict=True, ge=1, le=MAX_RECORD_SECONDS), WHOLE] = Field(
        description="How long to record."
    )
    timeout_seconds: float = Field(
        default=float(MAX_RECORD_SECONDS + 60),
        gt=0,
        le=MAX_TIMEOUT_SECONDS,
        description="How long the phone may take for recording and handing over.",
    )

    @model_validator(mode="after")
    def _leaves_time_to_record(self) -> "RecordScreen":
        if self.timeout_seconds < self.seconds + _RECORD_MARGIN_SECONDS:
            raise ValueError(f"timeout_seconds must be at least seconds + {_RECORD_MARGIN_SECONDS}")
        return self
