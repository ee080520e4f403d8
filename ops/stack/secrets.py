"""The stack's generated secrets: made once, kept in files only their owner can read."""

import os
import secrets
from pathlib import Path

from contracts.settings import refuse_printed_secret
from ops.stack.errors import StackError


def secret(folder: Path, name: str) -> str:
    """A secret of this stack, generated at its first use.

    Args:
        folder: The secrets folder, mode 0700.
        name: What it is for, `postgres-ish_owner`; also the file's name.

    Returns:
        43 URL-safe characters, 256 random bits; or whatever a person put into the file.

    Raises:
        StackError: The file holds one of the secrets that are refused.
    """
    path = folder / name
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    value = path.read_text(encoding="utf-8").strip()
    try:
        refuse_printed_secret(value)
    except ValueError as error:
        message = f"{path}: {error}; delete the file and a new one is made"
        raise StackError(message) from error
    return value


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner can read; readers see the old content or the new, never a part.

    Args:
        path: The file.
        content: Its whole new content.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    partial.replace(path)
