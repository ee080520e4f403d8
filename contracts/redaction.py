"""Takes secrets that are to be typed out of a command's body, before anything of it is written down.

A secret stands in the message in the broker until its command has run, since that is where the command is kept; rows, dead
letters, results and logs have `null` in its place. A command that comes from one of those has lost its secret, and ends with
`secret_gone` instead of typing something else. A body that is no JSON is kept as it came: nobody can tell what is in it.
"""

from typing import Any

import orjson

_MAY_BE_SECRET = (b"secret", b"\\u")
"""A name may also be written with escapes."""


def redacted(body: bytes) -> bytes:
    """A body without its secrets; the same bytes when it has none.

    Args:
        body: Of an `android.execute` command, whether it fits that or not.
    """
    if not any(sign in body for sign in _MAY_BE_SECRET):
        return body
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    if not _take_out(document):
        return body
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        return b"null"  # nested more deeply than any command is: nothing of it is kept


def _take_out(document: Any) -> bool:
    """Put null in the place of each secret, however deep; whether there is any."""
    found, left = False, [document]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if part.get("secret") is True and "text" in part:
                part["text"], found = None, True
            left += part.values()
        elif isinstance(part, list):
            left += part
    return found
