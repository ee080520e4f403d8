"""Takes screenshots: of the phone's first display or of another one, and says when a picture shows nothing."""

import asyncio
import re

from contracts.errors import ErrorCode, Permanent
from workers.android.adb.server import ShellOutput
from workers.android.png import NotAPicture, find_picture
from workers.android.readings import Reading, artifact_reading, succeeded, text_of
from workers.android.session import Session

_DISPLAYS = "dumpsys SurfaceFlinger --display-id"
_DISPLAY = re.compile(r"^Display (\d{1,20}) \(HWC display \d+\)", re.MULTILINE)
_BLACK = "every pixel is black: the screen is off, or what is on it may not be pictured"


async def screenshot(session: Session, *, display: int) -> Reading:
    """What is on a display, as a PNG artifact.

    Args:
        session: The phone.
        display: Counted from 0 as the phone lists them.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: There is no such display, or the phone sent no usable picture.
    """
    line = f"screencap -d {await _display_id(session, display)} -p"
    output = await session.line(line, effect=False, max_output_bytes=session.artifact_limit_bytes)
    return await asyncio.to_thread(read_picture, output)


async def _display_id(session: Session, display: int) -> str:
    """What `screencap` calls a display.

    Raises:
        Permanent: The phone has not so many.
    """
    listed = _DISPLAY.findall(text_of((await session.line(_DISPLAYS, effect=False)).stdout))
    if not listed:
        return str(display)  # before Android 10 they are known by their place
    if display >= len(listed):
        sentence = f"the phone has {len(listed)} display{'s'[: len(listed) != 1]}, counted from 0: none is {display}"
        raise Permanent(ErrorCode.BAD_SCREENSHOT, sentence, details={"displays": len(listed)})
    return str(listed[display])


def read_picture(output: ShellOutput) -> Reading:
    """The picture that `screencap -p` printed, as an artifact.

    Raises:
        Permanent: It printed none that is whole (bad_screenshot), or failed.
    """
    printed = succeeded(output)
    try:
        picture = find_picture(printed)
    except NotAPicture as error:
        sentence = f"the phone sent no usable screenshot: {error}"
        raise Permanent(ErrorCode.BAD_SCREENSHOT, sentence, details={"size_bytes": len(printed)}) from error
    reading = artifact_reading(picture.content, "image/png", width=picture.width, height=picture.height)
    if picture.is_black:
        return Reading({**reading.output, "all_black": True, "hint": _BLACK}, reading.artifacts)
    return reading
