"""Test aid: lets a worker kill itself at a named point of a command's way, so that crash tests hit where they aim.

Set `ISH_KILL_POINT=after_commit@20` to die the 20th time a delivery passes that point. Off, it costs one comparison.
"""

import os
import signal
from pathlib import Path


class KillPoints:
    """Counts passes of one point and kills the process at the given one.

    Args:
        setting: `<point>` or `<point>@<nth>`; empty means never.
        mark: File that receives one line right before the kill, as proof that it landed.
    """

    def __init__(self, setting: str, mark: str) -> None:
        self._point, _, nth = setting.partition("@")
        self._left = int(nth or 1)
        self._mark = mark

    def armed(self, point: str) -> bool:
        """Whether this is the point to die at.

        Args:
            point: Name of the point.
        """
        return point == self._point

    def reach(self, point: str, count: int = 1, *, in_flight: int = 0) -> None:
        """Pass a point; may not return.

        Args:
            point: Name of the point.
            count: Deliveries that pass it together.
            in_flight: Deliveries this worker holds unacked, for the mark.
        """
        if point != self._point:
            return
        self._left -= count
        if self._left <= 0:
            if self._mark:
                Path(self._mark).write_text(f"{point} pid={os.getpid()} in_flight={in_flight}\n", encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
