"""The simulated phone itself: its properties, battery, screen and effect log, which programs read and change."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ops.phone.behaviour import Behaviour, Control
from ops.phone.drawing import draw
from ops.phone.effects import EffectLog
from ops.phone.screen import Screen

MODEL = "ISH Simulated Phone"
ANDROID_VERSION = "14"
BATTERY_PERCENT = 87


@dataclass(slots=True)
class Device:
    """One simulated phone."""

    serial: str
    effects: EffectLog
    control: Control = field(default_factory=Control)
    screen: Screen = field(default_factory=Screen)
    running: int = 0
    """Command lines running now."""
    started: float = field(default_factory=time.monotonic)

    @property
    def properties(self) -> Mapping[str, str]:
        """What `getprop` knows."""
        return {
            "ro.build.characteristics": "simulated",
            "ro.build.version.release": ANDROID_VERSION,
            "ro.build.version.sdk": "34",
            "ro.product.brand": "ISH",
            "ro.product.device": "ish_simulated",
            "ro.product.manufacturer": "ISH",
            "ro.product.model": MODEL,
            "ro.product.name": "ish_simulated",
            "ro.serialno": self.serial,
            "sys.boot_completed": "1",
        }

    @property
    def behaviour(self) -> Behaviour:
        """How it misbehaves at the moment."""
        return self.control.behaviour

    def screenshot(self) -> bytes:
        """PNG bytes of the screen."""
        facts = f"{MODEL}\nserial {self.serial}\nAndroid {ANDROID_VERSION}"
        return draw(self.screen, battery_percent=BATTERY_PERCENT, clock=time.strftime("%H:%M"), facts=facts)
