"""What a screen is made of: views with their place, text and flags, how they are clipped, and which one a finger hits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

WIDTH = 720
HEIGHT = 1280
STATUS_BAR_BOTTOM = 56

Look = Literal["plain", "text", "title", "quiet", "button", "card", "field", "progress", "switch"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A rectangle in pixels from the top left of the screen; the right and bottom edges are outside."""

    left: int
    top: int
    right: int
    bottom: int

    def holds(self, x: int, y: int) -> bool:
        """Whether the point lies inside."""
        return self.left <= x < self.right and self.top <= y < self.bottom

    def moved(self, down_px: int) -> "Bounds":
        """The same rectangle further down."""
        return Bounds(self.left, self.top + down_px, self.right, self.bottom + down_px)

    def within(self, other: "Bounds") -> "Bounds | None":
        """What of it lies inside another; None when nothing does."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Bounds(left, top, right, bottom) if left < right and top < bottom else None


SCREEN = Bounds(0, 0, WIDTH, HEIGHT)
CONTENT = Bounds(0, STATUS_BAR_BOTTOM, WIDTH, HEIGHT)
LANDSCAPE = Bounds(0, 0, HEIGHT, WIDTH)
LANDSCAPE_CONTENT = Bounds(0, STATUS_BAR_BOTTOM, HEIGHT, WIDTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One view, as Android's accessibility service shows it."""

    kind: str
    """Its class, `android.widget.TextView`."""
    bounds: Bounds
    text: str = ""
    resource_id: str = ""
    """In full, `com.ish.notes:id/editor`."""
    description: str = ""
    """`content-desc`: what a screen reader says."""
    event: str = ""
    """What its app is told when it is clicked; clickable views have one."""
    hint: bool = False
    """Whether the text is the hint of an empty field."""
    checkable: bool = False
    checked: bool = False
    enabled: bool = True
    focused: bool = False
    scrollable: bool = False
    look: Look = "plain"
    children: tuple["View", ...] = ()

    @property
    def clickable(self) -> bool:
        """Whether a tap on it does something."""
        return bool(self.event) or self.is_field

    @property
    def is_field(self) -> bool:
        """Whether it can be typed into."""
        return self.look == "field"

    def walk(self) -> Iterator["View"]:
        """It and everything in it, in drawing order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def moved(self, down_px: int) -> "View":
        """It and everything in it further down."""
        children = tuple(child.moved(down_px) for child in self.children)
        return replace(self, bounds=self.bounds.moved(down_px), children=children)

    def clipped(self, area: Bounds) -> "View | None":
        """What of it can be seen through an area; None when nothing can."""
        bounds = self.bounds.within(area)
        if bounds is None:
            return None
        children = tuple(shown for child in self.children if (shown := child.clipped(bounds)) is not None)
        return replace(self, bounds=bounds, children=children)


def hit(root: View, x: int, y: int) -> View | None:
    """The view that a finger on a point touches.

    Args:
        root: The whole screen.
        x: Pixels from the left.
        y: Pixels from the top.

    Returns:
        The innermost one that can be clicked; where none can, the innermost one; None outside the screen.
    """
    path = _path(root, x, y)
    return next((view for view in reversed(path) if view.clickable and view.enabled), path[-1] if path else None)


def _path(view: View, x: int, y: int) -> list[View]:
    if not view.bounds.holds(x, y):
        return []
    for child in reversed(view.children):
        if inner := _path(child, x, y):
            return [view, *inner]
    return [view]


def label(text: str, bounds: Bounds, *, resource_id: str = "", look: Look = "text") -> View:
    """A line of text."""
    return View(kind="android.widget.TextView", bounds=bounds, text=text, resource_id=resource_id, look=look)


def button(
    text: str, bounds: Bounds, *, event: str, resource_id: str = "", description: str = "", enabled: bool = True
) -> View:
    """Something to tap; one without text is a picture with a description."""
    kind = "android.widget.Button" if text else "android.widget.ImageButton"
    return View(
        kind=kind,
        bounds=bounds,
        text=text,
        resource_id=resource_id,
        description=description,
        event=event,
        enabled=enabled,
        look="button",
    )


def text_field(text: str, bounds: Bounds, *, hint: str, focused: bool, resource_id: str) -> View:
    """Something to type into; while it is empty, it shows its hint, as Android does."""
    return View(
        kind="android.widget.EditText",
        bounds=bounds,
        text=text or hint,
        hint=not text,
        resource_id=resource_id,
        focused=focused,
        look="field",
    )


def group(
    bounds: Bounds,
    children: Sequence[View],
    *,
    kind: str = "android.widget.LinearLayout",
    resource_id: str = "",
    event: str = "",
    look: Look = "plain",
    scrollable: bool = False,
) -> View:
    """Views inside a container."""
    return View(
        kind=kind,
        bounds=bounds,
        resource_id=resource_id,
        event=event,
        look=look,
        scrollable=scrollable,
        children=tuple(children),
    )
