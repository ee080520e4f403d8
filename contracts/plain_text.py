"""Shows text that a person or another system gave as text: no character of it steers the terminal it is printed on."""

import unicodedata

_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: controls and escapes, invisible marks (among them those that turn the direction), halves of
surrogate pairs, and separators of lines and paragraphs."""
_JOINERS = "\u200c\u200d"
"""Written in Persian and in emoji; they change nothing but the letters beside them."""


def plain(value: object, *, lines: bool = False) -> str:
    r"""The text, with every character that a terminal would obey written out, such as `\x1b`.

    Args:
        value: What is to be shown; None is nothing.
        lines: Keep line ends and tabs: the text may take several lines.
    """
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    kept = _JOINERS + ("\n\t" if lines else "")
    return "".join(_shown(character, kept) for character in text)


def _shown(character: str, kept: str) -> str:
    if character in kept or unicodedata.category(character) not in _STEERING:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
