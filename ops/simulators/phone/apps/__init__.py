"""The apps on the simulated phone, one module each, and the set that a new phone comes with."""

from ops.simulators.phone.apps.app import App
from ops.simulators.phone.apps.browser import Browser
from ops.simulators.phone.apps.keyboard import AdbKeyboard
from ops.simulators.phone.apps.launcher import Launcher
from ops.simulators.phone.apps.notes import Notes
from ops.simulators.phone.apps.perplexity import Perplexity
from ops.simulators.phone.apps.settings import SettingsApp


def preinstalled(*, facts: str, keyboard: bool) -> dict[str, App]:
    """The apps of a new phone, by package, in the order of their icons.

    Args:
        facts: Shown by the settings app under "About phone".
        keyboard: Whether ADBKeyboard is among them; without it nothing but ASCII can be typed.
    """
    apps: list[App] = [Launcher(), Notes(), Browser(), SettingsApp(facts), Perplexity()]
    if keyboard:
        apps.append(AdbKeyboard())
    return {app.package: app for app in apps}
