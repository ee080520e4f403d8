"""The simulated phone itself: its properties, apps, screen, files, settings and logs, which programs read and change."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from ops.simulators.phone.apps import preinstalled
from ops.simulators.phone.apps.keyboard import ADB_KEYBOARD, ADB_KEYBOARD_METHOD
from ops.simulators.phone.behaviour import Behaviour, Control
from ops.simulators.phone.drawing import draw
from ops.simulators.phone.effects import EffectLog
from ops.simulators.phone.files import Files
from ops.simulators.phone.logcat import LogBuffer
from ops.simulators.phone.screen import Screen
from ops.simulators.phone.views import View

MODEL = "ISH Simulated Phone"
ANDROID_VERSION = "14"
BATTERY_PERCENT = 87
LATIN_KEYBOARD = "com.android.inputmethod.latin/.LatinIME"
"""The input method that every phone has; what `adb` types with `input text` does not pass through it."""
_PROC = {
    "cpuinfo": "processor\t: 0\nHardware\t: simulated\n",
    "loadavg": "0.00 0.00 0.00 1/100 4000\n",
    "meminfo": "MemTotal:        4194304 kB\nMemFree:         2097152 kB\nMemAvailable:    3145728 kB\n",
    "version": "Linux version 6.1 (simulated)\n",
}


class Device:
    """One simulated phone.

    Args:
        serial: Its `ro.serialno`.
        effects: Where its effects are logged.
        keyboard: Whether ADBKeyboard is installed.
    """

    def __init__(self, serial: str, effects: EffectLog, *, keyboard: bool = True) -> None:
        self.serial = serial
        self.effects = effects
        self.control = Control()
        facts = f"{MODEL}\nserial {serial}\nAndroid {ANDROID_VERSION}"
        self.screen = Screen(preinstalled(facts=facts, keyboard=keyboard))
        self.log = LogBuffer()
        self.install_sessions: dict[int, Any] = {}
        """Of `ops.simulators.phone.programs.installs`, by number."""
        self.running = 0
        """Command lines running now."""
        self.started = time.monotonic()
        self.files = Files(
            {"/proc/uptime": self._uptime, **{f"/proc/{name}": text.encode for name, text in _PROC.items()}},
            is_full=lambda: not self.behaviour.writes_files,
        )
        self.settings = {
            ("global", "device_name"): MODEL,
            ("secure", "android_id"): "51a1a7ed0000f00d",
            ("secure", "default_input_method"): LATIN_KEYBOARD,
            ("secure", "enabled_input_methods"): LATIN_KEYBOARD,
            ("system", "screen_brightness"): "102",
            ("system", "screen_off_timeout"): "60000",
        }

    @property
    def properties(self) -> Mapping[str, str]:
        """What `getprop` knows."""
        return {
            "ro.build.characteristics": "simulated",
            "ro.build.version.release": ANDROID_VERSION,
            "ro.build.version.sdk": "34",
            "ro.product.brand": "ISH",
            "ro.product.cpu.abi": "arm64-v8a",
            "ro.product.device": "ish_simulated",
            "ro.product.manufacturer": "ISH",
            "ro.product.model": MODEL,
            "ro.product.name": "ish_simulated",
            "ro.serialno": self.serial,
            "sys.boot_completed": "1" if self.behaviour.boot == "completed" else "",
        }

    @property
    def behaviour(self) -> Behaviour:
        """How it misbehaves at the moment."""
        return self.control.behaviour

    @property
    def input_methods(self) -> list[str]:
        """The ids of those that are installed."""
        return [LATIN_KEYBOARD, *([ADB_KEYBOARD_METHOD] if ADB_KEYBOARD in self.screen.apps else [])]

    @property
    def input_method(self) -> str:
        """The id of the one in use."""
        return self.settings["secure", "default_input_method"]

    @property
    def enabled_input_methods(self) -> list[str]:
        """The ids of those that may be chosen."""
        return self.settings["secure", "enabled_input_methods"].split(":")

    def root(self) -> View:
        """The window in front."""
        self.follow_behaviour()
        return self.screen.root()

    def follow_behaviour(self) -> None:
        """Have the screen show what the behaviour says of it; before each program and each look."""
        self.screen.shift_px = self.behaviour.shift_px
        self.screen.locked = self.behaviour.lock != "none"
        self.screen.landscape = self.behaviour.rotation in (1, 3)

    async def screenshot(self) -> bytes:
        """PNG bytes of the screen as it is now."""
        root = self.root() if self.screen.awake and not self.behaviour.secure_window else None
        touches = list(self.screen.touches)
        clock = time.strftime("%H:%M")
        return await asyncio.to_thread(
            draw,
            root,
            touches,
            battery_percent=BATTERY_PERCENT,
            clock=clock,
            landscape=self.behaviour.rotation in (1, 3),
        )

    def remove_app(self, package: str) -> None:
        """Uninstall an app; where it was the input method, the phone's own takes its place."""
        self.screen.end(package)
        del self.screen.apps[package]
        if package == ADB_KEYBOARD:
            self.settings["secure", "default_input_method"] = LATIN_KEYBOARD
            self.settings["secure", "enabled_input_methods"] = LATIN_KEYBOARD

    def _uptime(self) -> bytes:
        return f"{time.monotonic() - self.started:.2f} 0.00\n".encode()
