"""An app that was installed from a file: what its APK said, so that another one can be measured against it."""

from ops.simulators.phone.apk import Apk
from ops.simulators.phone.apps.app import App


class InstalledApp(App):
    """Shows its name.

    Args:
        apk: Its base.
        splits: Names of the splits that came with it.
    """

    def __init__(self, apk: Apk, *, splits: tuple[str, ...] = ()) -> None:
        super().__init__(apk.package, apk.name)
        self.apk = apk
        self.splits = splits
