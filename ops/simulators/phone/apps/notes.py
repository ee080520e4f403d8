"""A notes app: one large field that has the focus as soon as the app opens."""

from collections.abc import Sequence

from typing_extensions import override

from ops.simulators.phone.apps.app import TITLE, App, Moment
from ops.simulators.phone.views import WIDTH, Bounds, View, label, text_field


class Notes(App):
    """Keeps one note."""

    package = "com.ish.notes"
    activity = ".Notes"
    label = "Notes"
    starts_typing = True
    multiline = True

    def __init__(self) -> None:
        pass

    @override
    def views(self, moment: Moment) -> Sequence[View]:
        editor = text_field(
            moment.text,
            Bounds(40, 160, WIDTH - 40, 1184),
            hint="Write a note",
            focused=moment.focused,
            resource_id=self.id("editor"),
        )
        return [label("Notes", TITLE, look="title"), editor]
