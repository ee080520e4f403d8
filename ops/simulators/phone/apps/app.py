"""What every app on the simulated phone has: a name, pages made of views, and reactions to clicks, text and the back key."""

from collections.abc import Sequence
from dataclasses import dataclass

from ops.simulators.phone.views import WIDTH, Bounds, View, group, label

TITLE = Bounds(40, 80, WIDTH - 40, 140)


@dataclass(frozen=True, slots=True)
class Moment:
    """What an app's page depends on besides the app itself."""

    text: str
    """In its text field."""
    focused: bool
    """Whether that field has the focus."""
    now: float
    """Seconds of the phone's clock."""


class App:
    """One installed app; this one only shows its name, and serves for apps that were installed from a file.

    An app shows at most one text field at a time; the phone keeps what was typed into it.
    """

    package: str
    activity: str
    label: str
    version = "1.0"
    has_icon = True
    system = True
    """Comes with the phone and cannot be uninstalled."""
    starts_typing = False
    """Whether its field has the focus as soon as it opens."""
    multiline = False
    """Whether ENTER is a new line rather than the end of the input."""

    def __init__(self, package: str, name: str) -> None:
        self.package = package
        self.activity = ".MainActivity"
        self.label = name
        self.system = False

    @property
    def component(self) -> str:
        """As `am start -n` wants it."""
        return f"{self.package}/{self.activity}"

    def views(self, moment: Moment) -> Sequence[View]:
        """What its page shows, in drawing order; places are those of an unshifted layout."""
        del moment
        return [label(self.label, TITLE, look="title")]

    def click(self, event: str, moment: Moment) -> str | None:
        """A view was tapped.

        Args:
            event: The view's.
            moment: When, and what is typed.

        Returns:
            What opens next: a package or an address on the web; None stays.
        """
        del event, moment
        return None

    def submit(self, text: str, now: float) -> bool:
        """The text field's input is complete.

        Returns:
            Whether the app took it; the field is then empty again.
        """
        del text, now
        return False

    def open_address(self, url: str) -> bool:
        """Show an address on the web; whether this app can."""
        del url
        return False

    def scroll(self, down_px: int) -> None:
        """A finger moved the page; negative is back up."""

    def back(self) -> bool:
        """The back key; whether there was a page to go back to."""
        return False

    def reset(self) -> None:
        """Forget every page, as when the app's process ends."""

    def id(self, name: str) -> str:
        """A view's resource id in full."""
        return f"{self.package}:id/{name}"

    def page(self, views: Sequence[View]) -> View:
        """The views in the container that every app's window has."""
        return group(Bounds(0, 0, WIDTH, 1 << 15), views, kind="android.widget.FrameLayout")
