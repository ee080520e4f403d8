"""Finds out whether two connections lead to one phone: what is written over the first is looked for over the second."""

from uuid import uuid4

from workers.android.adb.server import AdbFailure, BoundServer

_SECONDS = 3.0


async def are_one(first: tuple[BoundServer, str], second: tuple[BoundServer, str]) -> bool | None:
    """Whether two connections lead to one phone.

    Args:
        first: A server bound to a connection, and the phone's address there.
        second: The other one.

    Returns:
        None when it cannot be found out: one did not answer, or the phone keeps no file.
    """
    (one, one_address), (other, other_address) = first, second
    note = uuid4().hex
    path = f"/data/local/tmp/ish.same.{note}"
    try:
        written = await one.shell(one_address, f"echo {note} >{path} && cat {path}", timeout_seconds=_SECONDS)
        if written.stdout.strip() != note.encode():
            return None
        found = await other.shell(other_address, f"cat {path}", timeout_seconds=_SECONDS)
        await one.shell(one_address, f"rm -f {path}", timeout_seconds=_SECONDS)
    except AdbFailure:
        return None
    return found.stdout.strip() == note.encode()
