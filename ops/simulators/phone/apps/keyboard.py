"""ADBKeyboard: the input method that types text which `adb` sends it, in any script."""

from typing_extensions import override

from ops.simulators.phone.apps.app import App


class AdbKeyboard(App):
    """The package of the input method; it has no icon and no page of its own."""

    package = "com.android.adbkeyboard"
    activity = ".AdbIME"
    label = "ADBKeyboard"
    version = "2.4"
    has_icon = False

    @override
    def __init__(self) -> None:
        self.system = False


ADB_KEYBOARD = AdbKeyboard.package
"""Its package."""
ADB_KEYBOARD_METHOD = f"{AdbKeyboard.package}/{AdbKeyboard.activity}"
"""Its id as an input method."""
