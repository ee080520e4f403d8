"""Android's key names and numbers, as the simulated phone knows them."""

from contracts.android.keys import HIGHEST_KEY, KEY_NUMBERS

_NUMBERS = {
    "HOME": 3,
    "BACK": 4,
    "DPAD_UP": 19,
    "DPAD_DOWN": 20,
    "DPAD_LEFT": 21,
    "DPAD_RIGHT": 22,
    "DPAD_CENTER": 23,
    "VOLUME_UP": 24,
    "VOLUME_DOWN": 25,
    "POWER": 26,
    "CAMERA": 27,
    "COMMA": 55,
    "PERIOD": 56,
    "SHIFT_LEFT": 59,
    "TAB": 61,
    "SPACE": 62,
    "ENTER": 66,
    "DEL": 67,
    "MINUS": 69,
    "SLASH": 76,
    "AT": 77,
    "MENU": 82,
    "SEARCH": 84,
    "PAGE_UP": 92,
    "PAGE_DOWN": 93,
    "ESCAPE": 111,
    "FORWARD_DEL": 112,
    "CTRL_LEFT": 113,
    "MOVE_HOME": 122,
    "MOVE_END": 123,
    "NUMPAD_ENTER": 160,
    "VOLUME_MUTE": 164,
    "APP_SWITCH": 187,
    "SLEEP": 223,
    "WAKEUP": 224,
    **{str(digit): 7 + digit for digit in range(10)},
    **{chr(ord("A") + letter): 29 + letter for letter in range(26)},
}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_UNKNOWN = "UNKNOWN"


def key_name(code: str) -> str:
    """The name, without `KEYCODE_`, of a key given by name or number.

    Returns:
        UNKNOWN when Android has no such key: it injects that one, and says nothing. A number this phone has no use for is
        returned as it is.
    """
    if code.isascii() and code.isdigit():
        number = int(code)
        return _NAMES.get(number, code) if number <= HIGHEST_KEY else _UNKNOWN
    name = code.removeprefix("KEYCODE_")
    return name if name in KEY_NUMBERS else _UNKNOWN
