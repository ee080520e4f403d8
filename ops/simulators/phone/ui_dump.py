"""Writes a screen as `uiautomator dump` does: XML, one `node` a view, with the attributes in Android's order."""

from ops.simulators.phone.views import View

_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
)
_NOT_IN_XML = {code: "." for code in (*range(0x20), 0xFFFE, 0xFFFF) if chr(code) not in "\n\r\t"}
"""Android writes a dot for what XML cannot hold."""


NOT_XML = (
    '<node text="a&#0;b&#xB;\x01 &#55357;&#56832; &#55357;\udc00" class="android.view.View" bounds="[0,0][9,9]" />'
)
"""An element with what XML forbids: NUL and control characters, and halves of a character, alone and together."""


def dump(root: View, *, package: str, rotation: int = 0, noise: str = "") -> str:
    """The whole document, on one line after its declaration as on a phone.

    Args:
        root: The window in front.
        package: Of the app it belongs to.
        rotation: Quarter turns of the screen, 0 to 3.
        noise: What stands after its nodes.
    """
    nodes = _node(root, package=package, index=0)
    declaration = "<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>"
    return f'{declaration}<hierarchy rotation="{rotation}">{nodes}{noise}</hierarchy>'


def _node(view: View, *, package: str, index: int) -> str:
    bounds = view.bounds
    attributes = {
        "index": str(index),
        "text": view.text,
        "resource-id": view.resource_id,
        "class": view.kind,
        "package": package,
        "content-desc": view.description,
        "checkable": _flag(view.checkable),
        "checked": _flag(view.checked),
        "clickable": _flag(view.clickable),
        "enabled": _flag(view.enabled),
        "focusable": _flag(view.clickable),
        "focused": _flag(view.focused),
        "scrollable": _flag(view.scrollable),
        "long-clickable": _flag(view.is_field),
        "password": "false",
        "selected": "false",
        "bounds": f"[{bounds.left},{bounds.top}][{bounds.right},{bounds.bottom}]",
    }
    written = " ".join(f'{name}="{_escaped(value)}"' for name, value in attributes.items())
    if not view.children:
        return f"<node {written} />"
    children = "".join(_node(child, package=package, index=place) for place, child in enumerate(view.children))
    return f"<node {written}>{children}</node>"


def _flag(value: bool) -> str:  # noqa: FBT001  # only turns it into Android's word
    return "true" if value else "false"


def _escaped(text: str) -> str:
    return text.translate(_NOT_IN_XML).translate(_ESCAPES)
