"""Looks at a phone's screen: dumps its elements, finds one, waits for one, taps one."""

import asyncio
import time
from collections.abc import Sequence

from contracts.android import screen_actions
from contracts.android.fields import Selector
from contracts.errors import CommandError, ErrorCode, Permanent
from workers.android.adb.server import AdbFailure, ShellOutput
from workers.android.elements import Element, NoScreen, Screen, read_screen_xml
from workers.android.readings import Reading, artifact_reading, failure, read_silence, text_of
from workers.android.reasons import MAX_REASON_CHARACTERS, reason
from workers.android.session import Session

_FILE = "/data/local/tmp/ish.ui.xml"
_MAX_XML_BYTES = 4 * 1024 * 1024
_AT_ONCE_BYTES = 64 * 1024
"""Larger ones are read in a thread, so that other phones need not wait."""
_PAUSE_SECONDS = 0.25
_MOST_EMPTY_LOOKS = 5
"""In a row, each after a longer pause; between two windows there is none for a moment."""
_RESTLESS_SECONDS = 60.0
"""For how long after a look that found no rest the next ones leave out what has no meaning to a reader."""
_LONGEST_LOOK_SECONDS = 5.0
"""A phone that needs longer, and twice as long as before, does not answer, rather than not having the element."""
_SHOWN_ELEMENTS = 200
_RESTLESS = "could not get idle state"
_NO_WINDOW = "null root node"


class _Restless(NoScreen):
    """Something on the screen kept moving: `uiautomator` waits 10 s for it and gives up."""


class _NoWindow(NoScreen):
    """There was no window to look into."""


async def look(session: Session) -> Screen:
    """What is on the screen; waits while it moves too much for Android to say.

    Raises:
        AdbFailure: The phone went away, or the time was over before the screen could be read; tells the phone's reason.
        CommandError: The phone cannot look.
    """
    empty_looks = 0
    why: NoScreen | None = None
    while True:
        try:
            return await look_once(session)
        except NoScreen as error:
            why = error
            empty_looks = empty_looks + 1 if isinstance(error, _NoWindow) else 0
        except AdbFailure as lost:
            if why is None or lost.code is not ErrorCode.TIMEOUT:
                raise
            raise AdbFailure(lost.code, f"the screen could not be read in time: {why}") from lost
        if empty_looks == _MOST_EMPTY_LOOKS:
            sentence = f"the screen could not be read, {empty_looks} times in a row: {why}"
            raise Permanent(ErrorCode.NONZERO_EXIT, sentence, details={"reason": str(why)}) from why
        pause_seconds = _PAUSE_SECONDS * max(1, empty_looks)
        if session.seconds_left <= pause_seconds:
            raise AdbFailure(ErrorCode.TIMEOUT, f"the screen could not be read in time: {why}") from why
        await asyncio.sleep(pause_seconds)


async def look_once(session: Session) -> Screen:
    """What is on the screen.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: The phone cannot look.
        NoScreen: It could not tell this time, as while something on the screen keeps moving; the message is the phone's.
    """
    try:
        screen = await _read(session)
    except NoScreen as error:
        session.unreadable = str(error)
        raise
    session.unreadable = ""
    return screen


async def _read(session: Session) -> Screen:
    compressed = time.monotonic() < session.screen.restless_until
    try:
        output = await session.line(_dump(compressed=compressed), effect=False, max_output_bytes=_MAX_XML_BYTES)
    except AdbFailure as lost:
        if lost.code is ErrorCode.TIMEOUT and lost.begun:
            # less time than Android waits for rest: the next command shall not end so too
            session.screen.restless_until = time.monotonic() + _RESTLESS_SECONDS
        raise
    if output.truncated:
        sentence = f"the screen's tree of elements is larger than {_MAX_XML_BYTES} bytes"
        raise Permanent(ErrorCode.TRUNCATED, sentence)
    if output.exit_code:
        why = _why_not(output)
        if isinstance(why, _Restless):
            session.screen.restless_until = time.monotonic() + _RESTLESS_SECONDS
        elif not isinstance(why, _NoWindow):
            session.screen.restless_until = 0.0
        raise why
    if len(output.stdout) > _AT_ONCE_BYTES:
        return await asyncio.to_thread(read_screen_xml, output.stdout)
    return read_screen_xml(output.stdout)


def _dump(*, compressed: bool) -> str:
    # the dump of last time must not be taken for this one's: uiautomator exits with 0 also when it could not look;
    # compressed, it leaves out what only holds other elements, and waits for rest only of what is left
    return f"rm -f {_FILE}; uiautomator dump {'--compressed ' if compressed else ''}{_FILE}; cat {_FILE}"


async def dump(session: Session) -> Reading:
    """All of the screen as XML, and the elements that say or do something.

    Raises:
        AdbFailure: As `look`.
        CommandError: As `look`.
    """
    screen = await look(session)
    useful = [one for one in screen.elements if one.label or one.id or one.clickable or one.scrollable]
    document = artifact_reading(screen.xml, "application/xml")
    return Reading(
        {
            "package": screen.package,
            "rotation_degrees": 90 * screen.rotation,
            "count": len(screen.elements),
            **_shown(useful),
            **document.output,
        },
        document.artifacts,
    )


async def find(session: Session, action: screen_actions.Find) -> Reading:
    """The elements that fit.

    Raises:
        AdbFailure: As `look`.
        CommandError: As `look`.
    """
    found = (await look(session)).find(action.selector)
    return Reading({"count": len(found), **_shown(found)})


async def wait_for(session: Session, action: screen_actions.WaitFor) -> Reading:
    """Look again and again until there is such an element, or none any more.

    Raises:
        AdbFailure: The phone went away, or answered nothing in time.
        CommandError: It is not so in time (element_not_found), or the phone cannot look.
    """
    found = await _until(session, action.selector, gone=action.gone)
    return Reading({"count": len(found), **_shown(found)})


async def tap_on(session: Session, action: screen_actions.TapOn) -> Reading:
    """Wait for the one element that fits and takes touches, and touch its middle.

    Raises:
        AdbFailure: The phone went away, or answered nothing in time.
        CommandError: There is none in time, or there are several (element_not_found), or the phone did not do it.
    """
    enabled = action.selector.model_copy(update={"enabled": True})
    found = await _until(session, enabled if action.selector.enabled is None else action.selector)
    if len(found) > 1:
        raise not_found(f"{len(found)} elements fit; say which one with `index`, counted from 0", elements=len(found))
    await tap_element(session, found[0])
    return Reading({"element": found[0].as_json()})


async def _until(session: Session, selector: Selector, *, gone: bool = False) -> list[Element]:
    """What fits once anything does; or nothing, once nothing does any more."""
    looks = count = 0
    longest_seconds = _LONGEST_LOOK_SECONDS / 2
    answered_at = time.monotonic()
    try:
        while True:
            screen = await look(session)
            looks += 1
            longest_seconds = max(longest_seconds, time.monotonic() - answered_at)
            answered_at = time.monotonic()
            found = screen.find(selector)
            if bool(found) is not gone:
                return found
            count = len(screen.elements)
            await asyncio.sleep(min(_PAUSE_SECONDS, session.seconds_left))
    except AdbFailure as lost:
        silent = time.monotonic() - answered_at > 2 * longest_seconds
        if not looks or silent or lost.code is not ErrorCode.TIMEOUT:
            raise
        wanted = "the element is still on the screen" if gone else "there is no such element on the screen"
        raise not_found(f"{wanted} after {looks} looks", elements=count) from lost


async def tap_element(session: Session, element: Element) -> None:
    """Touch the middle of an element.

    Raises:
        AdbFailure: The phone went away or took too long.
        Permanent: The phone did not do it.
    """
    x, y = element.bounds.center
    read_silence(await session.line(f"input tap {max(0, x)} {max(0, y)}", effect=True))


def not_found(sentence: str, *, elements: int) -> Permanent:
    """What was looked for is not on the screen; of the screen itself the error tells only how much there is.

    Args:
        sentence: What is wrong.
        elements: How many were on the screen at the last look.
    """
    return Permanent(ErrorCode.ELEMENT_NOT_FOUND, sentence, details={"elements_on_screen": elements})


def _shown(elements: Sequence[Element]) -> dict[str, object]:
    shown = [element.as_json() for element in elements[:_SHOWN_ELEMENTS]]
    return {"elements": shown, "truncated": len(elements) > len(shown)}


def _why_not(output: ShellOutput) -> CommandError | NoScreen:
    printed = output.stderr + output.stdout
    if b"uiautomator: " in output.stderr and b"not found" in output.stderr:
        return failure(output)
    for words, kind in ((_RESTLESS, _Restless), (_NO_WINDOW, _NoWindow)):
        line = next((line for line in text_of(printed).splitlines() if words in line), None)
        if line is not None:
            return kind(line.strip()[:MAX_REASON_CHARACTERS])
    return NoScreen(reason(output))
