"""The home screen: an icon for every app that has one."""

from collections.abc import Iterable, Sequence

from typing_extensions import override

from ops.simulators.phone.apps.app import App, Moment
from ops.simulators.phone.views import Bounds, View

_TOP = 220
_LEFT = 60
_COLUMNS = 3
_CELL = 200
_ICON = 180


class Launcher(App):
    """The app behind the home key."""

    package = "com.ish.launcher"
    activity = ".Home"
    label = "Home"
    has_icon = False

    def __init__(self) -> None:
        self.icons: Iterable[App] = ()
        """The apps to show; the phone sets them."""

    @override
    def views(self, moment: Moment) -> Sequence[View]:
        return [_icon(place, app) for place, app in enumerate(app for app in self.icons if app.has_icon)]

    @override
    def click(self, event: str, moment: Moment) -> str | None:
        return event


def _icon(place: int, app: App) -> View:
    left, top = _LEFT + place % _COLUMNS * _CELL, _TOP + place // _COLUMNS * _CELL
    return View(
        kind="android.widget.TextView",
        bounds=Bounds(left, top, left + _ICON, top + _ICON),
        text=app.label,
        resource_id="com.ish.launcher:id/icon",
        description=app.label,
        event=app.package,
        look="button",
    )
