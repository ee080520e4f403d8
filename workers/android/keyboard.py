"""Types and clears text: ASCII by Android's own `input`, everything else through the ADBKeyboard input method.

`input text` can only type what a hardware keyboard has. ADBKeyboard (github.com/senzhk/ADBKeyBoard) is an input method
that takes text from broadcasts; it must be installed, and is in use only while a text is typed.
"""

import asyncio
import base64
import re
import shlex

from contracts.errors import ErrorCode, Permanent
from workers.android.adb.server import AdbFailure, ShellOutput
from workers.android.readings import Reading, failure, read_silence, succeeded, text_of
from workers.android.reasons import complains
from workers.android.screen import look
from workers.android.session import Session

ADB_KEYBOARD = "com.android.adbkeyboard/.AdbIME"
_PACKAGE = ADB_KEYBOARD.partition("/")[0]
_TYPEABLE = re.compile(r"[\n\t\x20-\x7e]*")
_PIECE_CHARACTERS = 500
_SETTLING_SECONDS = 0.7
"""An input method that was just chosen is bound to the text field only after a moment; text sent before is lost."""
_METHODS = "settings get secure default_input_method && ime list -a -s"
_METHOD_ID = re.compile(r"[A-Za-z0-9_.]+/[A-Za-z0-9_.$]+")
_MISSING = (
    "this phone can only be given ASCII text; for other characters install the ADBKeyboard app "
    f"({_PACKAGE}) on it, which types for adb in any script"
)
_DELETES_PER_LINE = 500


async def type_text(session: Session, text: str) -> Reading:
    """Type into whatever has the focus.

    Args:
        session: The phone.
        text: What to type, at least one character.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: It cannot type this (unsupported_text_input), or did not.
    """
    if _TYPEABLE.fullmatch(text):
        return read_silence(await session.line(line_for_ascii(text), effect=True))
    methods = text_of(succeeded(await session.line(_METHODS, effect=False))).split()
    if ADB_KEYBOARD not in methods[1:]:
        raise Permanent(ErrorCode.UNSUPPORTED_TEXT_INPUT, _MISSING)
    in_use = methods[0]
    try:
        return _read_typed(await session.line(line_for_any(text, in_use=in_use), effect=True))
    except (AdbFailure, asyncio.CancelledError):
        # the line sets it back itself, unless it was hung up in the middle
        if in_use != ADB_KEYBOARD:
            await session.clean(_line_to_use(in_use))
        raise


async def clear_text(session: Session) -> Reading:
    """Empty the text field that has the focus.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: No text field has the focus, or the phone refused the keys.
    """
    screen = await look(session)
    field = next((element for element in screen.elements if element.focused), None)
    if field is None:
        raise Permanent(ErrorCode.ELEMENT_NOT_FOUND, "no text field has the focus; tap one first")
    # as many presses as there are UTF-16 units, to both sides of the cursor, wherever it is
    left = len(field.text.encode("utf-16-le", errors="replace")) // 2
    while left > 0:
        count = min(left, _DELETES_PER_LINE)
        keys = " ".join(["KEYCODE_DEL"] * count + ["KEYCODE_FORWARD_DEL"] * count)
        read_silence(await session.line(f"input keyevent {keys}", effect=False))
        left -= count
    return Reading({})


def line_for_ascii(text: str) -> str:
    """The command line that types ASCII.

    Args:
        text: Of the characters that a keyboard has.
    """
    # `input text` turns every %s into a space and has no escape for it: such a text is typed in pieces
    pieces = re.split(r"(?<=%)(?=s)", text)
    return " && ".join(f"input text {shlex.quote(piece)}" for piece in pieces)


def line_for_any(text: str, *, in_use: str) -> str:
    """The command line that types text through ADBKeyboard, and sets the input method back whatever comes of it.

    Args:
        text: Any.
        in_use: Id of the input method in use; `null` when there is none.
    """
    pieces = [text[start : start + _PIECE_CHARACTERS] for start in range(0, len(text), _PIECE_CHARACTERS)]
    encoded = (base64.b64encode(piece.encode()).decode() for piece in pieces)
    broadcasts = " && ".join(
        f"am broadcast -a ADB_INPUT_B64 --es msg {one} -p {_PACKAGE} --user current" for one in encoded
    )
    if in_use == ADB_KEYBOARD:
        return broadcasts
    use = f"ime enable {ADB_KEYBOARD} && ime set {ADB_KEYBOARD} && sleep {_SETTLING_SECONDS} && {broadcasts}"
    return f"{use}; r=$?; {_line_to_use(in_use)}; exit $r"


def _line_to_use(method: str) -> str:
    return f"ime set {shlex.quote(method)}" if _METHOD_ID.fullmatch(method) else "ime reset"


def _read_typed(output: ShellOutput) -> Reading:
    printed = output.stdout + output.stderr
    if complains(output) or b"Broadcast completed" not in printed:
        raise failure(output)
    succeeded(output)
    return Reading({})
