"""A settings app: a list that scrolls, switches, and a page about the phone."""

from collections.abc import Sequence

from typing_extensions import override

from ops.simulators.phone.apps.app import TITLE, App, Moment
from ops.simulators.phone.views import WIDTH, Bounds, View, button, group, label

_ROWS = (
    *("Network & internet", "Connected devices", "Apps", "Notifications", "Battery", "Storage", "Sound & vibration"),
    *("Display", "Wallpaper & style", "Accessibility", "Security & privacy", "Location", "System", "About phone"),
)
_SWITCHES = ("Wi-Fi", "Bluetooth")
_ROW_PX = 96
_LIST = Bounds(0, 160, WIDTH, 1184)
_ABOUT = "About phone"


class SettingsApp(App):
    """Shows and switches a few things that change nothing else on the phone."""

    package = "com.android.settings"
    activity = ".Settings"
    label = "Settings"

    def __init__(self, facts: str) -> None:
        self._facts = facts
        self._about = False
        self._scrolled_px = 0
        self.switched_on = {"Wi-Fi"}

    @override
    def views(self, moment: Moment) -> Sequence[View]:
        if self._about:
            back = button("", Bounds(24, 80, 88, 140), event="back", description="Navigate up")
            title = label(_ABOUT, Bounds(110, 80, WIDTH - 40, 140), look="title")
            return [back, title, label(self._facts, Bounds(40, 180, WIDTH - 40, 600), resource_id=self.id("facts"))]
        rows = [self._row(place, name) for place, name in enumerate((*_SWITCHES, *_ROWS))]
        content = group(
            _LIST,
            [row.moved(_LIST.top - self._scrolled_px) for row in rows],
            kind="androidx.recyclerview.widget.RecyclerView",
            resource_id=self.id("list"),
            scrollable=True,
        )
        return [label("Settings", TITLE, look="title"), content]

    def _row(self, place: int, name: str) -> View:
        top = place * _ROW_PX
        parts = [label(name, Bounds(40, top + 16, 520, top + _ROW_PX - 16), resource_id="android:id/title")]
        if name in _SWITCHES:
            parts.append(
                View(
                    kind="android.widget.Switch",
                    bounds=Bounds(580, top + 24, 680, top + _ROW_PX - 24),
                    text="ON" if name in self.switched_on else "OFF",
                    resource_id="android:id/switch_widget",
                    checkable=True,
                    checked=name in self.switched_on,
                    look="switch",
                )
            )
        return group(Bounds(0, top, WIDTH, top + _ROW_PX), parts, event=name, look="card")

    @override
    def click(self, event: str, moment: Moment) -> str | None:
        if event in _SWITCHES:
            self.switched_on ^= {event}
        elif event == _ABOUT:
            self._about = True
        elif event == "back":
            self._about = False
        return None

    @override
    def scroll(self, down_px: int) -> None:
        longest = (len(_SWITCHES) + len(_ROWS)) * _ROW_PX - (_LIST.bottom - _LIST.top)
        self._scrolled_px = min(max(0, self._scrolled_px + down_px), longest)

    @override
    def back(self) -> bool:
        had_page, self._about = self._about, False
        return had_page

    @override
    def reset(self) -> None:
        self._about = False
        self._scrolled_px = 0
