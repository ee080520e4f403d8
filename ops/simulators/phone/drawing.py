"""Draws the simulated phone's screen as a PNG, so that a screenshot shows what really happened on it."""

import io
import textwrap
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from ops.simulators.phone.screen import Touch
from ops.simulators.phone.views import HEIGHT, STATUS_BAR_BOTTOM, WIDTH, Look, View

_BACKGROUND = (246, 247, 249)
_INK = (28, 32, 40)
_QUIET = (110, 118, 130)
_ACCENT = (38, 110, 210)
_PAPER = (255, 255, 255)
_TRACE = (220, 60, 60)
_RADIUS = 20
_TEXT_PIXELS: dict[Look, int] = {"title": 40, "quiet": 22, "button": 28}
_USUAL_PIXELS = 26
_CHARACTER_WIDTH = 0.52
"""Of a character, as a part of the font's size; close enough to break lines at."""
_LINE_HEIGHT = 1.25


def draw(
    root: View | None, touches: Sequence[Touch], *, battery_percent: int, clock: str, landscape: bool = False
) -> bytes:
    """The screen as PNG bytes, WIDTH by HEIGHT pixels, or HEIGHT by WIDTH in landscape.

    Args:
        root: The window in front; None for a screen that is off.
        touches: The last ones, drawn as red traces.
        battery_percent: Shown in the status bar, 0 to 100.
        clock: Shown in the status bar.
        landscape: Whether the screen is turned.
    """
    size = (HEIGHT, WIDTH) if landscape else (WIDTH, HEIGHT)
    image = Image.new("RGB", size, _BACKGROUND if root else (0, 0, 0))
    if root:
        canvas = ImageDraw.Draw(image)
        for view in root.walk():
            _draw_view(canvas, view)
        _draw_bars(canvas, size[0], battery_percent=battery_percent, clock=clock)
        _draw_touches(canvas, touches)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def nothing() -> bytes:
    """A display that shows nothing, as PNG bytes."""
    return draw(None, [], battery_percent=0, clock="")


def _draw_bars(canvas: ImageDraw.ImageDraw, width: int, *, battery_percent: int, clock: str) -> None:
    canvas.rectangle((0, 0, width, STATUS_BAR_BOTTOM), fill=_INK)
    canvas.text((24, 12), clock, fill=_PAPER, font=_font(26))
    canvas.text((width // 2, 16), "simulated phone", fill=_QUIET, font=_font(22), anchor="ma")
    canvas.text((width - 24, 12), f"{battery_percent}%", fill=_PAPER, font=_font(26), anchor="ra")


def _draw_view(canvas: ImageDraw.ImageDraw, view: View) -> None:
    bounds = view.bounds
    box = (bounds.left, bounds.top, bounds.right - 1, bounds.bottom - 1)
    if view.look in ("card", "field"):
        outline = _ACCENT if view.focused else _QUIET
        canvas.rounded_rectangle(box, radius=_RADIUS, fill=_PAPER, outline=outline, width=3 if view.focused else 1)
    elif view.look in ("button", "switch"):
        lit = view.enabled and (view.look == "button" or view.checked)
        canvas.rounded_rectangle(box, radius=_RADIUS, fill=_ACCENT if lit else _QUIET)
    elif view.look == "progress":
        canvas.arc(box, 0, 270, fill=_ACCENT, width=6)
    if view.look in ("button", "switch"):
        middle = ((bounds.left + bounds.right) // 2, (bounds.top + bounds.bottom) // 2)
        words = view.text or view.description
        size = _fitting_pixels(words, bounds.right - bounds.left)
        canvas.text(middle, words, fill=_PAPER, font=_font(size), anchor="mm")
    elif view.text:
        _draw_text(canvas, view)


def _draw_text(canvas: ImageDraw.ImageDraw, view: View) -> None:
    pixels = _TEXT_PIXELS.get(view.look, _USUAL_PIXELS)
    indent = 24 if view.look == "field" else 0
    bounds = view.bounds
    columns = max(1, int((bounds.right - bounds.left - 2 * indent) / (pixels * _CHARACTER_WIDTH)))
    rows = max(1, int((bounds.bottom - bounds.top - indent) / (pixels * _LINE_HEIGHT)))
    lines = [part for line in view.text.split("\n") for part in textwrap.wrap(line, columns) or [""]]
    shown = lines[-rows:] if view.look == "field" else lines[:rows]
    ink = _QUIET if view.hint or view.look == "quiet" else _INK
    place = (bounds.left + indent, bounds.top + min(indent, 12 if rows == 1 else indent))
    canvas.multiline_text(place, "\n".join(shown), fill=ink, font=_font(pixels))


def _fitting_pixels(words: str, room: int) -> int:
    return max(10, min(_TEXT_PIXELS["button"], int(room / (_CHARACTER_WIDTH * 1.2 * max(1, len(words))))))


def _draw_touches(canvas: ImageDraw.ImageDraw, touches: Sequence[Touch]) -> None:
    for touch in touches:
        canvas.line((touch.x1, touch.y1, touch.x2, touch.y2), fill=_TRACE, width=6)
        for x, y in ((touch.x1, touch.y1), (touch.x2, touch.y2)):
            canvas.ellipse((x - 14, y - 14, x + 14, y + 14), outline=_TRACE, width=4)


@cache
def _font(size_pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_pixels)
