"""The screen as a tree of elements: read from `uiautomator dump`, searched with selectors. No I/O."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

from contracts.android.fields import Selector
from workers.android.xml_text import readable

_BOUNDS = re.compile(r"\[(-?\d{1,6}),(-?\d{1,6})\]\[(-?\d{1,6}),(-?\d{1,6})\]")
_DECLARATION = re.compile(rb"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
_END = b"</hierarchy>"
_QUARTERS = ("0", "1", "2", "3")


class NoScreen(Exception):
    """What the phone printed is no whole tree of elements; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A rectangle in pixels from the top left of the screen."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def center(self) -> tuple[int, int]:
        """Its middle: x and y."""
        return (self.left + self.right) // 2, (self.top + self.bottom) // 2

    @property
    def empty(self) -> bool:
        """Whether nothing of it can be touched."""
        return self.right <= self.left or self.bottom <= self.top


@dataclass(frozen=True, slots=True)
class Element:
    """One element of the screen."""

    place: int
    """In the tree, from its top; first is 0. Also its index in `Screen.elements`."""
    depth: int
    text: str
    id: str
    """`com.app:id/name`; empty when it has none."""
    description: str
    class_name: str
    package: str
    bounds: Bounds
    clickable: bool
    enabled: bool
    focused: bool
    scrollable: bool
    checked: bool
    selected: bool

    def fits(self, selector: Selector) -> bool:
        """Whether it is what the selector asks for, but for the index."""
        wanted = (
            (selector.text, self.text),
            (selector.description, self.description),
            (selector.package, self.package),
            (selector.clickable, self.clickable),
            (selector.enabled, self.enabled),
            (selector.focused, self.focused),
        )
        return (
            all(asked is None or asked == found for asked, found in wanted)
            and _within(selector.text_contains, self.text)
            and _within(selector.description_contains, self.description)
            and _named(selector.id, self.id, separator=":id/")
            and _named(selector.class_name, self.class_name, separator=".")
        )

    @property
    def label(self) -> str:
        """What it says: its text, else its description."""
        return self.text or self.description

    def as_json(self) -> dict[str, Any]:
        """For results."""
        x, y = self.bounds.center
        return {
            "text": self.text,
            "id": self.id,
            "description": self.description,
            "class_name": self.class_name,
            "package": self.package,
            "bounds": {
                "left": self.bounds.left,
                "top": self.bounds.top,
                "right": self.bounds.right,
                "bottom": self.bounds.bottom,
            },
            "center": {"x": x, "y": y},
            "clickable": self.clickable,
            "enabled": self.enabled,
            "focused": self.focused,
            "scrollable": self.scrollable,
            "checked": self.checked,
            "selected": self.selected,
        }


@dataclass(frozen=True, slots=True)
class Screen:
    """All elements of a screen, in the tree's order; those of no size are there but never found."""

    elements: tuple[Element, ...]
    xml: bytes = field(repr=False)
    """The document they were read from; what XML forbids in it is U+FFFD."""
    rotation: int = 0
    """Quarter turns of the screen, 0 to 3."""

    def find(self, selector: Selector, *, within: Element | None = None) -> list[Element]:
        """The elements that fit; with an index at most that one.

        Args:
            selector: What they are like.
            within: The element to search, itself included; None searches the whole screen.
        """
        searched = self.elements if within is None else self.inside(within)
        found = [one for one in searched if not one.bounds.empty and one.fits(selector)]
        return found if selector.index is None else found[selector.index : selector.index + 1]

    def find_first(self, alternatives: Iterable[Selector], *, within: Element | None = None) -> list[Element]:
        """What the first of the selectors finds that finds anything."""
        return next(filter(None, (self.find(selector, within=within) for selector in alternatives)), [])

    def inside(self, element: Element) -> Iterator[Element]:
        """The element itself and all that is in it."""
        yield element
        for one in self.elements[element.place + 1 :]:
            if one.depth <= element.depth:
                return
            yield one

    def labels(self, elements: Sequence[Element]) -> list[str]:
        """What the elements say, with all that is in them, each once and in the tree's order; blank ones are left out."""
        places = {one.place: one for element in elements for one in self.inside(element) if not one.bounds.empty}
        return [label for place in sorted(places) if (label := places[place].label.strip())]

    @property
    def package(self) -> str:
        """The app in front: the one that has most elements; empty on an empty screen."""
        packages = [element.package for element in self.elements if element.package]
        return max(set(packages), key=packages.count, default="")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of what the elements cover."""
        return (
            max((element.bounds.right for element in self.elements), default=0),
            max((element.bounds.bottom for element in self.elements), default=0),
        )


def read_screen_xml(printed: bytes) -> Screen:
    """The screen that `uiautomator dump` wrote.

    Args:
        printed: Its document, with whatever the program printed around it.

    Raises:
        NoScreen: There is no whole document in it.
    """
    start, end = printed.find(b"<hierarchy"), printed.rfind(_END)
    if start < 0 or end < start:
        raise NoScreen("there is no whole tree of elements in the output")
    document = readable(printed[start : end + len(_END)])
    if _DECLARATION.search(document):
        raise NoScreen("the tree of elements declares entities, which Android's never does")
    try:
        root = ET.fromstring(document)  # noqa: S314  # declarations, where the danger is, are refused above
    except ET.ParseError as error:
        raise NoScreen(f"the tree of elements is not XML: {error}") from error
    nodes = enumerate(_walk(root, 0))
    elements = tuple(_element(place, depth, node) for place, (depth, node) in nodes)
    turned = root.get("rotation", "")
    return Screen(elements, document, rotation=int(turned) if turned in _QUARTERS else 0)


def _walk(node: ET.Element, depth: int) -> Iterator[tuple[int, ET.Element]]:
    waiting = [(depth, child) for child in reversed(node)]
    while waiting:
        depth, child = waiting.pop()
        yield depth, child
        waiting.extend((depth + 1, grandchild) for grandchild in reversed(child))


def _element(place: int, depth: int, node: ET.Element) -> Element:
    def flag(name: str) -> bool:
        return node.get(name) == "true"

    match = _BOUNDS.fullmatch(node.get("bounds", ""))
    return Element(
        place=place,
        depth=depth,
        text=node.get("text", ""),
        id=node.get("resource-id", ""),
        description=node.get("content-desc", ""),
        class_name=node.get("class", ""),
        package=node.get("package", ""),
        bounds=Bounds(*map(int, match.groups())) if match else Bounds(0, 0, 0, 0),
        clickable=flag("clickable"),
        enabled=flag("enabled"),
        focused=flag("focused"),
        scrollable=flag("scrollable"),
        checked=flag("checked"),
        selected=flag("selected"),
    )


def _within(wanted: str | None, found: str) -> bool:
    return wanted is None or wanted.casefold() in found.casefold()


def _named(wanted: str | None, found: str, *, separator: str) -> bool:
    """Whether a name is the wanted one, in full or by its last part."""
    return wanted is None or found == wanted or (separator not in wanted and found.rpartition(separator)[2] == wanted)
