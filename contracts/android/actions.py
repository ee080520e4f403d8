"""The typed actions on apps, files and facts of a phone, flows and batches; with those on its screen they are all there are.

Each action says what it asks of the phone, the rule of each field, and whether it may run twice.
"""

import base64
import binascii
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, field_validator, model_validator
from typing_extensions import override

from contracts.android import screen_actions as screen
from contracts.android import shell
from contracts.android.fields import (
    DEFAULT_TIMEOUT_SECONDS,
    MAX_TEXT_CHARACTERS,
    MAX_TIMEOUT_SECONDS,
    MAX_TRANSFER_SECONDS,
    Activity,
    Effect,
    Package,
    PhonePath,
    PropertyName,
    Repeatable,
    Sha256,
    Target,
    Text,
    Url,
    is_false,
    is_none,
)
from contracts.schema_rules import batch_items, exactly_one, not_together
from contracts.whole_numbers import WHOLE

MAX_BATCH_ACTIONS = 100
MAX_SPLIT_APKS = 64
MAX_LINE_BYTES = 32 * 1024
"""Of a command line's arguments together; adb itself takes at most 64 KiB."""
_NOT_EMPTY: dict[str, JsonValue] = {"minItems": 1}
"""Said to readers of the schema only: pydantic would complain of an empty tuple beside each item that it refuses."""
_OUTPUT_BYTES = 1024 * 1024
_MAX_OUTPUT_BYTES = 4 * 1024 * 1024

LogFilter = Annotated[
    # not `-f/data/local/tmp/x:V`, which `logcat` would take for an option
    str, StringConstraints(pattern=r"^[A-Za-z0-9_.*/][A-Za-z0-9_.*/\-]{0,99}:[VDIWEFS]$")
]
OutputLimit = Annotated[
    int,
    Field(strict=True, ge=1, le=_MAX_OUTPUT_BYTES, description="Output beyond this is cut off: `truncated` is true."),
    WHOLE,
]


class GetProperty(Repeatable):
    """One system property, or all of them."""

    action: Literal["getprop"]
    name: PropertyName | None = Field(default=None, exclude_if=is_none)


class GetBattery(Repeatable):
    """Charge, temperature and power source."""

    action: Literal["battery"]


class GetCurrentApp(Repeatable):
    """Package and activity that have the focus."""

    action: Literal["current_app"]


class GetStatus(Repeatable):
    """Model, Android version, battery, screen and current app in one answer."""

    action: Literal["status"]


class ReadLog(Repeatable):
    """The newest lines of the phone's log."""

    action: Literal["logcat"]
    lines: Annotated[int, Field(strict=True, ge=1, le=10_000), WHOLE] = 200
    filter: tuple[LogFilter, ...] = Field(
        default=(),
        max_length=20,
        description="`TAG:PRIORITY` each; with one, only what is named is read.",
        examples=[["ActivityManager:I"]],
    )
    max_output_bytes: OutputLimit = _OUTPUT_BYTES


class ListPackages(Repeatable):
    """The installed apps."""

    action: Literal["list_packages"]
    kind: Literal["all", "third_party", "system"] = "all"


class OpenUrl(Effect):
    """Open an address in the app that shows such addresses, or in the one given: a web page, or a page of an app."""

    action: Literal["open_url"]
    url: Url
    package: Package | None = Field(default=None, exclude_if=is_none)


class StartApp(Repeatable):
    """Bring an app to the front: the given activity, or the one its launcher icon opens."""

    action: Literal["start_app"]
    package: Package
    activity: Activity | None = Field(default=None, exclude_if=is_none)


class StopApp(Repeatable):
    """End an app and its services."""

    action: Literal["stop_app"]
    package: Package


class Install(Target):
    """Install an app: an artifact of yours, the split APKs of one app, or a file that was pushed to the phone."""

    model_config = ConfigDict(
        json_schema_extra={**not_together("device", "tag"), **exactly_one("artifact", "artifacts", "path")}
    )

    action: Literal["install"]
    artifact: Sha256 | None = Field(
        default=None, exclude_if=is_none, description="The APK's artifact; `POST /api/artifacts` makes one."
    )
    artifacts: tuple[Sha256, ...] | None = Field(
        default=None,
        exclude_if=is_none,
        min_length=1,
        max_length=MAX_SPLIT_APKS,
        json_schema_extra={"uniqueItems": True},
        description="The artifacts of a split app, base and splits; they are installed together or not at all.",
    )
    path: PhonePath | None = Field(default=None, exclude_if=is_none, description="The APK on the phone.")
    replace: bool = Field(
        default=True,
        strict=True,
        description="`-r`: replace an installed version and keep its data; false refuses it (`-R`).",
    )
    grant_permissions: bool = Field(
        default=False, strict=True, description="`-g`: grant every permission that it asks for."
    )
    allow_test: bool = Field(
        default=False, exclude_if=is_false, strict=True, description="`-t`: also an app that is marked `testOnly`."
    )
    allow_downgrade: bool = Field(
        default=False,
        exclude_if=is_false,
        strict=True,
        description="`-d`: also an older version; phones allow it for debuggable apps only.",
    )
    timeout_seconds: float = Field(
        default=300.0, gt=0, le=MAX_TRANSFER_SECONDS, description="How long the phone may take for all of it."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Install":
        if sum(source is not None for source in (self.artifact, self.artifacts, self.path)) != 1:
            raise ValueError("give either artifact or artifacts or path")
        if self.artifacts is not None and len(set(self.artifacts)) < len(self.artifacts):
            raise ValueError("artifacts: the same one is named twice")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The artifacts that it installs, by their sha256."""
        return self.artifacts or ((self.artifact,) if self.artifact is not None else ())

    @property
    def flags(self) -> tuple[str, ...]:
        """As the package manager takes them."""
        asked = {
            "-r": self.replace,
            "-R": not self.replace,
            "-g": self.grant_permissions,
            "-t": self.allow_test,
            "-d": self.allow_downgrade,
        }
        return tuple(flag for flag, wanted in asked.items() if wanted)

    @property
    def stoppable(self) -> bool:
        """Whether it can be stopped while it runs: until the phone has all of it."""
        return True

    @property
    def repeatable(self) -> bool:
        """Whether running it again after a lost answer does no harm."""
        return self.replace


class Uninstall(Repeatable):
    """Remove an app and its data; one that is not installed stays so."""

    action: Literal["uninstall"]
    package: Package


class Push(Repeatable):
    """Write a file on the phone, over an older one of that name."""

    model_config = ConfigDict(
        json_schema_extra={**not_together("device", "tag"), **exactly_one("content_base64", "artifact")}
    )

    action: Literal["push"]
    path: PhonePath
    content_base64: str | None = Field(default=None, exclude_if=is_none, description="The content.")
    artifact: Sha256 | None = Field(default=None, exclude_if=is_none, description="Or an artifact of yours.")
    timeout_seconds: float = Field(
        default=DEFAULT_TIMEOUT_SECONDS,
        gt=0,
        le=MAX_TRANSFER_SECONDS,
        description="How long the phone may take for all of it.",
    )

    @field_validator("content_base64")
    @classmethod
    def _is_base64(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise ValueError("must be base64 with padding, as RFC 4648 section 4 has it") from None
        return value

    @model_validator(mode="after")
    def _one_source(self) -> "Push":
        if (self.content_base64 is None) == (self.artifact is None):
            raise ValueError("give either content_base64 or artifact")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The artifact that it writes, by its sha256."""
        return () if self.artifact is None else (self.artifact,)


class Pull(Repeatable):
    """A file of the phone, as an artifact."""

    action: Literal["pull"]
    path: PhonePath


class Wake(Repeatable):
    """Switch the screen on."""

    action: Literal["wake"]


class RunShell(Target):
    """Run one allow-listed program on the phone; `contracts.android.shell` has the list."""

    action: Literal["shell"]
    argv: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARACTERS)], ...],
        Field(max_length=64, json_schema_extra=_NOT_EMPTY),
    ]
    max_output_bytes: OutputLimit = _OUTPUT_BYTES

    @field_validator("argv")
    @classmethod
    def _allowed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if sum(len(argument.encode(errors="replace")) + 1 for argument in value) > MAX_LINE_BYTES:
            raise ValueError(f"the arguments must be at most {MAX_LINE_BYTES} bytes long together")
        shell.check(value)
        return value

    @property
    def stoppable(self) -> bool:
        """Whether it can be stopped while it runs: it only reads."""
        return self.repeatable

    @property
    def repeatable(self) -> bool:
        """Whether running it again after a lost answer does no harm."""
        return shell.check(self.argv)


class RunFlow(Effect):
    """Work an app through one of the flows that the workers have, such as `perplexity.ask`."""

    action: Literal["flow"]
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}\.[a-z][a-z0-9_]{0,31}$")] = Field(
        examples=["perplexity.ask"]
    )
    inputs: dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")], Text] = Field(
        default_factory=dict, max_length=16, description="What the flow asks for.", examples=[{"question": "Why?"}]
    )
    timeout_seconds: float = Field(
        default=180.0, gt=0, le=MAX_TIMEOUT_SECONDS, description="How long all of its steps may take."
    )

    @property
    @override
    def stoppable(self) -> bool:
        """Whether it can be stopped while it runs: between two of its steps."""
        return True


SingleAction = (
    screen.Tap
    | screen.Swipe
    | screen.LongPress
    | screen.PressKey
    | screen.TypeText
    | screen.ClearText
    | screen.TapOn
    | screen.Find
    | screen.WaitFor
    | screen.DumpScreen
    | screen.TakeScreenshot
    | screen.RecordScreen
    | GetProperty
    | GetBattery
    | GetCurrentApp
    | GetStatus
    | ReadLog
    | ListPackages
    | OpenUrl
    | StartApp
    | StopApp
    | Install
    | Uninstall
    | Push
    | Pull
    | Wake
    | RunShell
    | RunFlow
)


class Batch(Target):
    """Several actions on the same phone with nothing else in between; the first that fails ends it."""

    action: Literal["batch"]
    actions: tuple[Annotated[SingleAction, Field(discriminator="action")], ...] = Field(
        max_length=MAX_BATCH_ACTIONS, json_schema_extra=batch_items
    )
    timeout_seconds: float = Field(
        default=120.0, gt=0, le=MAX_TRANSFER_SECONDS, description="How long all of them may take together."
    )

    @model_validator(mode="after")
    def _one_phone(self) -> "Batch":
        if not self.actions:
            raise ValueError("actions: needs at least one")
        for position, action in enumerate(self.actions):
            if action.device is not None or action.tag is not None:
                raise ValueError(f"actions.{position}: device and tag stand on the batch, not on its actions")
        return self

    @property
    def stoppable(self) -> bool:
        """Whether it can be stopped while it runs: between two of its actions."""
        return True

    @property
    def repeatable(self) -> bool:
        """Whether running it again after a lost answer does no harm."""
        return all(action.repeatable for action in self.actions)


Action = SingleAction | Batch
