"""What is on the simulated phone's screen: its apps, which one is in front, what was typed and where it was touched."""

from collections import deque
from dataclasses import dataclass, field

WIDTH = 720
HEIGHT = 1280
HEADER_TOP = 56
CONTENT_TOP = 160
CONTENT_BOTTOM = 1184
_COLUMNS = 3
_CELL = 200
_MARGIN = 60


@dataclass(frozen=True, slots=True)
class App:
    """One installed app."""

    package: str
    activity: str
    label: str
    takes_text: bool = False

    @property
    def component(self) -> str:
        """As `am start -n` wants it."""
        return f"{self.package}/{self.activity}"


LAUNCHER = App("com.ish.launcher", ".Home", "Home")
APPS = (
    LAUNCHER,
    App("com.ish.notes", ".Notes", "Notes", takes_text=True),
    App("com.ish.browser", ".Browser", "Browser", takes_text=True),
    App("com.android.settings", ".Settings", "Settings"),
)


@dataclass(frozen=True, slots=True)
class Element:
    """A thing on the screen that a touch can hit."""

    text: str
    left: int
    top: int
    right: int
    bottom: int
    opens: App | None = None

    def holds(self, x: int, y: int) -> bool:
        """Whether the point lies inside."""
        return self.left <= x < self.right and self.top <= y < self.bottom


@dataclass(frozen=True, slots=True)
class Touch:
    """A finger that went from one point to another; both are equal for a tap."""

    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(slots=True)
class Screen:
    """The state that taps, keys and text change and that a screenshot shows."""

    awake: bool = True
    app: App = LAUNCHER
    typed: dict[str, str] = field(default_factory=dict)
    """Text in the field of each app, by package."""
    touches: deque[Touch] = field(default_factory=lambda: deque(maxlen=6))

    def elements(self) -> list[Element]:
        """What can be touched on the screen in front, in drawing order."""
        if self.app is LAUNCHER:
            return [_icon(position, app) for position, app in enumerate(APPS[1:])]
        text = self.typed.get(self.app.package, "") if self.app.takes_text else ""
        return [Element(text, 40, CONTENT_TOP, WIDTH - 40, CONTENT_BOTTOM)]

    def touch(self, touch: Touch) -> None:
        """A finger on the screen: it leaves a trace, and a tap opens what it hits."""
        if not self.awake:
            return
        self.touches.append(touch)
        if (touch.x1, touch.y1) == (touch.x2, touch.y2):
            for element in self.elements():
                if element.opens is not None and element.holds(touch.x1, touch.y1):
                    self.app = element.opens

    def type_text(self, text: str) -> None:
        """Characters from the keyboard, into the field of the app in front, if it has one."""
        if self.awake and self.app.takes_text:
            self.typed[self.app.package] = self.typed.get(self.app.package, "") + text

    def press(self, key: str) -> None:
        """A key by its name without `KEYCODE_`; those that this phone has no use for do nothing."""
        match key:
            case "HOME" | "BACK":
                self.app = LAUNCHER
            case "POWER":
                self.awake = not self.awake
            case "WAKEUP":
                self.awake = True
            case "SLEEP":
                self.awake = False
            case "ENTER":
                self.type_text("\n")
            case "DEL":
                self.typed[self.app.package] = self.typed.get(self.app.package, "")[:-1]
            case _:
                pass

    def start(self, package: str, activity: str | None) -> bool:
        """Bring an app to the front.

        Args:
            package: Its package.
            activity: With a leading dot or in full; None is the one its launcher icon opens.

        Returns:
            Whether there is such an app.
        """
        for app in APPS:
            if app.package == package and activity in (None, app.activity, package + app.activity):
                self.app = app
                return True
        return False


def _icon(position: int, app: App) -> Element:
    left = _MARGIN + (position % _COLUMNS) * _CELL
    top = CONTENT_TOP + _MARGIN + (position // _COLUMNS) * _CELL
    return Element(app.label, left, top, left + _CELL - 20, top + _CELL - 20, opens=app)
