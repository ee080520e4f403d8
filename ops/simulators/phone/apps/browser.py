"""A browser that shows which address it was given; nothing leaves the phone."""

from collections.abc import Sequence

from typing_extensions import override

from ops.simulators.phone.apps.app import App, Moment
from ops.simulators.phone.views import WIDTH, Bounds, View, label, text_field


class Browser(App):
    """Opens addresses on the web, also for other apps."""

    package = "com.ish.browser"
    activity = ".Browser"
    label = "Browser"

    def __init__(self) -> None:
        self.address = ""

    @override
    def views(self, moment: Moment) -> Sequence[View]:
        bar = text_field(
            moment.text,
            Bounds(40, 80, WIDTH - 40, 150),
            hint=self.address or "Type a web address",
            focused=moment.focused,
            resource_id=self.id("url_bar"),
        )
        shown = f"Simulated page of {self.address}" if self.address else "No page is open"
        return [bar, label(shown, Bounds(40, 180, WIDTH - 40, 900), resource_id=self.id("page"))]

    @override
    def submit(self, text: str, now: float) -> bool:
        return self.open_address(text)

    @override
    def open_address(self, url: str) -> bool:
        self.address = url
        return True

    @override
    def back(self) -> bool:
        had_page, self.address = bool(self.address), ""
        return had_page

    @override
    def reset(self) -> None:
        self.address = ""
