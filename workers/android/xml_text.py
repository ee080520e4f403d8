"""Makes of what a phone wrote as XML a document that every XML reader takes. Pure bytes in and out.

Apps put any character into their texts, and Android's writers let through what XML forbids: NUL, control characters, and
halves of a character beyond U+FFFF, as two references. One such character must not hide a whole screen.

Source: Extensible Markup Language 1.0, fifth edition, section 2.2 (the characters that a document may hold).
"""

import re

_REPLACEMENT = "\ufffd"
_REFERENCE = re.compile(r"&#(?:[xX]([0-9a-fA-F]+)|([0-9]+));")
_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST_REFERENCE = 7
"""Digits; a longer one names no character."""
_SURROGATES = range(0xD800, 0xE000)


def readable(document: bytes) -> bytes:
    """The document in UTF-8, with U+FFFD for what XML forbids, and the halves of a character put together.

    Args:
        document: Without a declaration of its encoding, which is UTF-8.
    """
    try:
        text = document.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = document.decode(errors="replace")
    text = _REFERENCE.sub(_referred, text)
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _FORBIDDEN.sub(_REPLACEMENT, joined).encode()


def _referred(match: re.Match[str]) -> str:
    digits, base = (match[1], 16) if match[1] else (match[2], 10)
    digits = digits.lstrip("0") or "0"
    code = int(digits, base) if len(digits) <= _LONGEST_REFERENCE else None
    if code is not None and code in _SURROGATES:
        return chr(code)  # the other half may follow
    if code is None or code > 0x10FFFF or _FORBIDDEN.match(chr(code)):  # noqa: PLR2004  # the last character there is
        return _REPLACEMENT
    return match[0]  # may be one that means something where it stands, such as `&#34;`
