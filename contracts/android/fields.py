"""What the fields of phone actions may hold: coordinates, packages, paths, selectors; and what all actions share."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from contracts.android.intents import url_fault
from contracts.schema_rules import at_least_one, not_together
from contracts.whole_numbers import WHOLE

DEFAULT_TIMEOUT_SECONDS = 30.0
MAX_TIMEOUT_SECONDS = 300.0
MAX_TRANSFER_SECONDS = 900.0
"""Of what moves files: an app of 1 GiB over a slow cable. RabbitMQ waits half an hour for an ack."""
MAX_TEXT_CHARACTERS = 4000
MAX_PATH_BYTES = 1000
MAX_URL_CHARACTERS = 4000
PHONE_FOLDERS = ("/sdcard/", "/data/local/tmp/")
OWN_FILES = "/data/local/tmp/ish."
"""Names that this product itself uses on phones; commands may not touch them."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_none(value: object) -> bool:
    """Whether a field was left out; for `exclude_if`.

    Args:
        value: The field's.
    """
    return value is None


def is_false(value: object) -> bool:
    """Whether a switch is off; for `exclude_if`.

    Args:
        value: The field's.
    """
    return value is False


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain the NUL character")
    return value


def _phone_path(value: str) -> str:
    folder = next((folder for folder in PHONE_FOLDERS if value.startswith(folder)), None)
    if folder is None:
        raise ValueError(f"must lie under {' or '.join(PHONE_FOLDERS)}")
    if any(part in ("", ".", "..") for part in value.removeprefix(folder).split("/")):
        raise ValueError("must name a file, without `.`, `..` or empty parts")
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    if len(value.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"must be at most {MAX_PATH_BYTES} bytes long")
    if value.startswith(OWN_FILES):
        raise ValueError(f"must not begin with {OWN_FILES}: those names are kept for the workers")
    return value


def _url(value: str) -> str:
    if fault := url_fault(value):
        raise ValueError(fault)
    return value


Coordinate = Annotated[
    int, Field(strict=True, ge=0, le=16383, description="Pixels from the top left of the screen."), WHOLE
]
DurationMs = Annotated[int, Field(strict=True, ge=1, le=60_000), WHOLE]
Serial = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:@+(), \-]{0,126}[A-Za-z0-9._:@+(),\-])?$")
]
Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,62}$")]
Package = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+$", max_length=255)]
Activity = Annotated[str, StringConstraints(pattern=r"^\.?[A-Za-z0-9_$]+(\.[A-Za-z0-9_$]+)*$", max_length=255)]
PropertyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$", max_length=128)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARACTERS), AfterValidator(_without_nul)]
Wanted = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_without_nul)]
PhonePath = Annotated[
    str,
    AfterValidator(_without_nul),
    AfterValidator(_phone_path),
    Field(description=f"A file on the phone, under {' or '.join(PHONE_FOLDERS)}.", examples=["/sdcard/Download/a.txt"]),
]
Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_URL_CHARACTERS),
    AfterValidator(_url),
    Field(description="An address with its scheme.", examples=["https://example.org/", "market://details?id=com.app"]),
]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


_CRITERIA = (
    "text",
    "text_contains",
    "id",
    "description",
    "description_contains",
    "class_name",
    "package",
    "clickable",
    "enabled",
    "focused",
)
"""Fields of a selector that say what is looked for, rather than which of several."""


class Selector(BaseModel):
    """Which elements of the screen: those that fit all of what is given."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=at_least_one(*_CRITERIA))

    text: Wanted | None = Field(default=None, exclude_if=is_none, description="Exactly this text.")
    text_contains: Wanted | None = Field(
        default=None, exclude_if=is_none, description="This within the text, in upper or lower case."
    )
    id: Wanted | None = Field(
        default=None, exclude_if=is_none, description="The resource id: `com.app:id/name` or only `name`."
    )
    description: Wanted | None = Field(
        default=None, exclude_if=is_none, description="Exactly this content description."
    )
    description_contains: Wanted | None = Field(
        default=None, exclude_if=is_none, description="This within the content description, in upper or lower case."
    )
    class_name: Wanted | None = Field(
        default=None, exclude_if=is_none, description="The class: `android.widget.EditText` or only `EditText`."
    )
    package: Package | None = Field(default=None, exclude_if=is_none, description="The app it belongs to.")
    clickable: bool | None = Field(default=None, exclude_if=is_none, strict=True)
    enabled: bool | None = Field(default=None, exclude_if=is_none, strict=True)
    focused: bool | None = Field(default=None, exclude_if=is_none, strict=True)
    index: Annotated[int, Field(strict=True, ge=0, le=999), WHOLE] | None = Field(
        default=None,
        exclude_if=is_none,
        description="Which of several, counted from 0 from the top of the screen's tree.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Selector":
        if not self.model_dump(exclude={"index"}):
            raise ValueError("needs at least one of text, id, description, class_name or the other criteria")
        return self


class Target(BaseModel):
    """Where and for how long; common to every action."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=not_together("device", "tag"))

    device: Serial | None = Field(
        default=None,
        exclude_if=is_none,
        description="Serial number of the phone; without one, any healthy phone.",
    )
    tag: Tag | None = Field(
        default=None, exclude_if=is_none, description="Any healthy phone that has this tag; not together with `device`."
    )
    timeout_seconds: float = Field(
        default=DEFAULT_TIMEOUT_SECONDS,
        gt=0,
        le=MAX_TIMEOUT_SECONDS,
        description="How long the phone may take for all of it.",
    )

    @model_validator(mode="after")
    def _one_of_device_and_tag(self) -> "Target":
        if self.device is not None and self.tag is not None:
            raise ValueError("give either device or tag, not both")
        return self


class Effect(Target):
    """Changes something each time it runs, so it must never run twice."""

    @property
    def stoppable(self) -> bool:
        """Whether it can be stopped while it runs."""
        return False

    @property
    def repeatable(self) -> bool:
        """Whether running it again after a lost answer does no harm."""
        return False


class Repeatable(Target):
    """Reads, or sets what is already set the second time."""

    @property
    def stoppable(self) -> bool:
        """Whether it can be stopped while it runs."""
        return True

    @property
    def repeatable(self) -> bool:
        """Whether running it again after a lost answer does no harm."""
        return True
