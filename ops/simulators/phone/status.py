"""What `ish phone start` shows while it runs: the screen in words, and the latest effects."""

import shlex
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ops.simulators.phone.device import Device
from ops.simulators.phone.fleet import Listening
from ops.simulators.phone.views import View

_SCREEN_LINES = 16
_EFFECT_LINES = 10
_LINE_CHARACTERS = 100


def status(running: Sequence[Listening], *, note: str) -> RenderableType:
    """The phones as they are now.

    Args:
        running: One is shown with its screen, several as a table.
        note: A sentence under it.
    """
    shown = _one(running[0]) if len(running) == 1 else _table(running)
    return Group(shown, Text(note, style="dim"))


def effect_line(effect: dict[str, Any]) -> str:
    """One effect for a person: when, what, and what it met.

    Args:
        effect: As it stands in the effect log.
    """
    met = effect.get("hit") or effect.get("field") or {}
    name = met.get("text") or met.get("description") or met.get("resource_id") or met.get("class") or ""
    words = _short(shlex.join(effect["argv"]))
    clock = time.strftime("%H:%M:%S", time.localtime(effect["at"]))
    return f"{clock}  {effect['action']:<12} {words}{f'  -> {_short(name)}' if name else ''}"


def screen_lines(device: Device) -> list[str]:
    """What can be read on the screen, from top to bottom: `[field]`, `<button>`, plain text."""
    if not device.screen.awake:
        return ["the screen is off"]
    return [line for view in device.root().walk() if (line := _view_line(view))]


def _view_line(view: View) -> str:
    words = _short((view.text or view.description).replace("\n", " / "))
    if view.is_field:
        return f"[{words}]{' <- types here' if view.focused else ''}"
    if view.look in ("button", "switch"):
        return f"<{words}>" if view.enabled else f"<{words}> (disabled)"
    return words


def _one(phone: Listening) -> RenderableType:
    device = phone.device
    title = f"{phone.name} at {phone.address}: {device.screen.app.label}"
    screen = Text("\n".join(screen_lines(device)[:_SCREEN_LINES]))
    latest = list(device.effects.latest)[-_EFFECT_LINES:]
    effects = Text("\n".join(map(effect_line, latest)) or "nothing yet")
    return Group(
        Panel(screen, title=Text(title), title_align="left"),
        Panel(effects, title=f"effects: {device.effects.count}", title_align="left"),
    )


def _table(running: Sequence[Listening]) -> RenderableType:
    table = Table("serial", "address", "in front", "effects", "latest", box=None)
    for phone in running:
        latest = effect_line(phone.device.effects.latest[-1]) if phone.device.effects.latest else ""
        label = phone.device.screen.app.label
        table.add_row(phone.name, phone.address, label, str(phone.device.effects.count), Text(latest))
    return table


def _short(words: str) -> str:
    return words if len(words) <= _LINE_CHARACTERS else words[: _LINE_CHARACTERS - 1] + "…"
