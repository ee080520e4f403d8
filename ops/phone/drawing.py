"""Draws the simulated phone's screen as a PNG, so that a screenshot shows what really happened on it."""

import io
import textwrap

from PIL import Image, ImageDraw, ImageFont

from ops.phone.screen import CONTENT_TOP, HEADER_TOP, HEIGHT, WIDTH, Element, Screen

_BACKGROUND = (246, 247, 249)
_INK = (28, 32, 40)
_QUIET = (110, 118, 130)
_ACCENT = (38, 110, 210)
_PAPER = (255, 255, 255)
_TRACE = (220, 60, 60)
_RADIUS = 26
_LINE_CHARACTERS = 44
_LINES = 28


def draw(screen: Screen, *, battery_percent: int, clock: str, facts: str) -> bytes:
    """The screen as PNG bytes, WIDTH by HEIGHT pixels.

    Args:
        screen: What to draw.
        battery_percent: Shown in the status bar, 0 to 100.
        clock: Shown in the status bar.
        facts: What the app without a text field shows.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), _BACKGROUND if screen.awake else (0, 0, 0))
    if screen.awake:
        canvas = ImageDraw.Draw(image)
        _draw_bars(canvas, screen, battery_percent=battery_percent, clock=clock)
        for element in screen.elements():
            _draw_element(canvas, element, facts="" if screen.app.takes_text else facts)
        _draw_touches(canvas, screen)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _draw_bars(canvas: ImageDraw.ImageDraw, screen: Screen, *, battery_percent: int, clock: str) -> None:
    canvas.rectangle((0, 0, WIDTH, HEADER_TOP), fill=_INK)
    canvas.text((24, 12), clock, fill=_PAPER, font=_font(26))
    canvas.text((WIDTH - 24, 12), f"{battery_percent}%", fill=_PAPER, font=_font(26), anchor="ra")
    canvas.text((40, HEADER_TOP + 24), screen.app.label, fill=_INK, font=_font(44))
    canvas.line((0, CONTENT_TOP - 8, WIDTH, CONTENT_TOP - 8), fill=_QUIET, width=1)
    canvas.text((WIDTH // 2, HEIGHT - 48), "simulated phone", fill=_QUIET, font=_font(24), anchor="ma")


def _draw_element(canvas: ImageDraw.ImageDraw, element: Element, *, facts: str) -> None:
    box = (element.left, element.top, element.right, element.bottom)
    if element.opens is not None:
        canvas.rounded_rectangle(box, radius=_RADIUS, fill=_ACCENT)
        middle = ((element.left + element.right) // 2, (element.top + element.bottom) // 2)
        canvas.text(middle, element.text, fill=_PAPER, font=_font(32), anchor="mm")
        return
    canvas.rounded_rectangle(box, radius=_RADIUS, fill=_PAPER, outline=_QUIET)
    lines = [
        part for line in (element.text or facts).split("\n") for part in textwrap.wrap(line, _LINE_CHARACTERS) or [""]
    ]
    canvas.multiline_text((element.left + 24, element.top + 24), "\n".join(lines[-_LINES:]), fill=_INK, font=_font(26))


def _draw_touches(canvas: ImageDraw.ImageDraw, screen: Screen) -> None:
    for touch in screen.touches:
        canvas.line((touch.x1, touch.y1, touch.x2, touch.y2), fill=_TRACE, width=6)
        for x, y in ((touch.x1, touch.y1), (touch.x2, touch.y2)):
            canvas.ellipse((x - 14, y - 14, x + 14, y + 14), outline=_TRACE, width=4)


def _font(size_pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_pixels)
