"""What is on the simulated phone's screen: the app in front, the focus, what was typed, and what fingers and keys do."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ops.simulators.phone.apps.app import App, Moment
from ops.simulators.phone.apps.launcher import Launcher
from ops.simulators.phone.editing import Cursor
from ops.simulators.phone.views import CONTENT, LANDSCAPE, LANDSCAPE_CONTENT, SCREEN, Bounds, View, group, hit, label

LONG_PRESS_MS = 500
_KEYPAD = {"SPACE": " ", "PERIOD": ".", "COMMA": ",", "AT": "@", "SLASH": "/", "MINUS": "-"}
_TOUCHES_SHOWN = 6
_SYSTEM = "com.android.systemui"
_LOCK_SCREEN = label("Locked. Swipe up to unlock", Bounds(60, 400, 660, 460), resource_id=f"{_SYSTEM}:id/keyguard")


@dataclass(frozen=True, slots=True)
class Touch:
    """A finger that went from one point to another; both are equal for a tap."""

    x1: int
    y1: int
    x2: int
    y2: int
    duration_ms: int = 0

    @property
    def stays(self) -> bool:
        """Whether it is a tap or a long press."""
        return (self.x1, self.y1) == (self.x2, self.y2)


@dataclass(slots=True)
class Screen:
    """The state that taps, keys and text change and that a screenshot shows."""

    apps: dict[str, App]
    """The installed ones by package, in the order of their icons; programs that install change it."""
    clock: Callable[[], float] = time.monotonic
    awake: bool = True
    locked: bool = False
    """Whether the lock screen covers the app in front."""
    landscape: bool = False
    """Whether it is turned, so that width and height have changed places."""
    shift_px: int = 0
    """How much further down every app's layout is, except the launcher's."""
    typed: dict[str, str] = field(default_factory=dict)
    """Text in the field of each app, by package."""
    touches: deque[Touch] = field(default_factory=lambda: deque(maxlen=_TOUCHES_SHOWN))
    cursor: Cursor = field(default_factory=Cursor)
    app: App = field(init=False)
    """The one in front."""
    focused: bool = False
    """Whether its text field has the focus, if it shows one."""

    def __post_init__(self) -> None:
        self.app = self._home()

    def root(self) -> View:
        """The window in front, clipped to the screen."""
        screen, content = (LANDSCAPE, LANDSCAPE_CONTENT) if self.landscape else (SCREEN, CONTENT)
        if self.locked:
            return group(screen, [_LOCK_SCREEN], kind="android.widget.FrameLayout")
        page = self.app.page(self.app.views(self._moment()))
        shifted = page.moved(0 if isinstance(self.app, Launcher) else self.shift_px)
        shown = shifted.clipped(content)
        return group(screen, [shown] if shown else [], kind="android.widget.FrameLayout")

    @property
    def package(self) -> str:
        """Of the window in front."""
        return _SYSTEM if self.locked or not self.awake else self.app.package

    def field(self) -> View | None:
        """The text field that has the focus; None when nothing has."""
        if not (self.awake and self.focused) or self.locked:
            return None
        return next((view for view in self.root().walk() if view.is_field), None)

    def hit(self, x: int, y: int) -> View | None:
        """The view under a point; None when the screen is off."""
        return hit(self.root(), x, y) if self.awake else None

    def touch(self, touch: Touch) -> None:
        """A finger on the screen: a tap clicks what it hits, a movement scrolls."""
        if not self.awake:
            return
        self.touches.append(touch)
        if self.locked:
            return
        if not touch.stays:
            self.app.scroll(touch.y1 - touch.y2)
            return
        view = self.hit(touch.x1, touch.y1)
        if view is None or not view.enabled:
            return
        if view.is_field:
            self.focused = True
            self.cursor.reset()
            self.cursor.all_selected = touch.duration_ms >= LONG_PRESS_MS
        elif view.event == "submit":
            self._submit()
        elif view.event:
            self._open(self.app.click(view.event, self._moment()))

    def type_text(self, text: str) -> None:
        """Characters from the keys, one after another; in a field of one line a line feed is its end."""
        if self.app.multiline:
            self.commit_text(text)
            return
        for place, piece in enumerate(text.split("\n")):
            if place:
                self.press("ENTER")
            self.commit_text(piece)

    def commit_text(self, text: str) -> None:
        """Text from an input method, into the field that has the focus."""
        if text and self.field() is not None:
            added = text if self.app.multiline else text.replace("\n", " ")
            self.typed[self.app.package] = self.cursor.insert(self._text(), added)

    def clear_text(self) -> None:
        """Empty the field that has the focus."""
        if self.field() is not None:
            self.typed[self.app.package] = ""
            self.cursor.reset()

    def select_all(self) -> None:
        """Select what is in the field that has the focus."""
        self.cursor.all_selected = bool(self.field() is not None and self._text())

    def press(self, key: str) -> None:
        """A key by its name without `KEYCODE_`; those that this phone has no use for do nothing."""
        if key in ("POWER", "WAKEUP", "SLEEP"):
            self.awake = {"POWER": not self.awake, "WAKEUP": True, "SLEEP": False}[key]
        elif not self.awake or self.locked:
            return
        elif key == "HOME":
            self.show(self._home())
        elif key == "BACK":
            self._back()
        elif key in ("ENTER", "NUMPAD_ENTER"):
            self._enter()
        elif character := _KEYPAD.get(key) or (key.lower() if len(key) == 1 else ""):
            self.commit_text(character)
        elif self.field() is not None:
            self.typed[self.app.package] = self.cursor.press(self._text(), key)

    def show(self, app: App) -> None:
        """Bring an app to the front, as it was left."""
        if app is not self.app:
            self.cursor.reset()
            self.focused = app.starts_typing
        self.app = app

    def start(self, package: str, activity: str | None) -> bool:
        """Bring an app to the front.

        Args:
            package: Its package.
            activity: With a leading dot or in full; None is the one its launcher icon opens.

        Returns:
            Whether there is such an app.
        """
        app = self.apps.get(package)
        if app is None or activity not in (None, app.activity, package + app.activity):
            return False
        if activity is None and not app.has_icon and not isinstance(app, Launcher):
            return False
        self.show(app)
        return True

    def open_address(self, url: str, *, package: str | None = None) -> bool:
        """Show an address on the web in an app that can, or in the one named; whether there is one."""
        for app in self.apps.values():
            if package in (None, app.package) and app.open_address(url):
                self.show(app)
                return True
        return False

    def end(self, package: str) -> None:
        """End an app's process: its pages and what was typed are gone."""
        app = self.apps.get(package)
        if app is None:
            return
        app.reset()
        self.typed.pop(package, None)
        if self.app is app:
            self.show(self._home())

    def _open(self, target: str | None) -> None:
        if target is None:
            if self.field() is None:
                self.focused = False
        elif not self.start(target, None):
            self.open_address(target)

    def _back(self) -> None:
        if self.app.back():
            self.focused = False
        else:
            self.show(self._home())

    def _enter(self) -> None:
        if self.app.multiline:
            self.commit_text("\n")
        elif self.field() is not None:
            self._submit()

    def _submit(self) -> None:
        if self.app.submit(self._text(), self.clock()):
            self.typed[self.app.package] = ""
            self.cursor.reset()
            self.focused = False

    def _home(self) -> App:
        for app in self.apps.values():
            if isinstance(app, Launcher):
                app.icons = self.apps.values()
                return app
        raise LookupError("a phone needs a launcher")

    def _text(self) -> str:
        return self.typed.get(self.app.package, "")

    def _moment(self) -> Moment:
        return Moment(self._text(), self.focused, self.clock())
