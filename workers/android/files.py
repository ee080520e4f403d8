"""Actions that move files: push, pull, recording the screen."""

import base64
from pathlib import PurePosixPath

from contracts.android import actions as android
from contracts.android import screen_actions
from contracts.errors import ErrorCode, Permanent
from workers.android.readings import Reading, artifact_reading, succeeded, text_of
from workers.android.session import Session
from workers.handler import StoredArtifact

_MOVIE = "/data/local/tmp/ish.record.mp4"
_TYPES = {
    ".apk": "application/vnd.android.package-archive",
    ".csv": "text/csv",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".log": "text/plain",
    ".mp4": "video/mp4",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".txt": "text/plain",
    ".webp": "image/webp",
    ".xml": "application/xml",
    ".zip": "application/zip",
}
_OTHER_TYPE = "application/octet-stream"
"""Also of HTML and SVG: what a phone holds must not run in the browser of whoever looks at it."""
_FILE_TYPE_PLACE = slice(4, 8)
"""Where an MP4 file says that it is one."""


async def push(session: Session, action: android.Push) -> Reading:
    """Write a file on the phone.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: It does not take the file, or there is no such artifact.
    """
    if action.artifact is not None:
        content = await session.artifact(action.artifact)
    else:
        content = StoredArtifact.of(base64.b64decode(action.content_base64 or ""))
    await session.write_file(action.path, content)
    return Reading({"path": action.path, "size_bytes": content.size_bytes})


async def pull(session: Session, action: android.Pull) -> Reading:
    """A file of the phone as an artifact.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: There is no such file, adb may not read it, or it is too large.
    """
    content = await session.read_file(action.path)
    reading = artifact_reading(content, _TYPES.get(PurePosixPath(action.path).suffix.lower(), _OTHER_TYPE))
    return Reading({"path": action.path, **reading.output}, reading.artifacts)


async def record(session: Session, action: screen_actions.RecordScreen) -> Reading:
    """Record the screen.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: It cannot record, or the record is too large.
    """
    try:
        succeeded(await session.line(f"screenrecord --time-limit {action.seconds} {_MOVIE}", effect=False))
        content = await session.read_file(_MOVIE)
    finally:
        await session.clean(f"rm -f {_MOVIE}")
    if content[_FILE_TYPE_PLACE] != b"ftyp":
        sentence = f"the phone recorded no MP4 file: it begins with {text_of(content[:16])!r}"
        raise Permanent(ErrorCode.NONZERO_EXIT, sentence, details={"size_bytes": len(content)})
    reading = artifact_reading(content, "video/mp4", seconds=action.seconds)
    return Reading(reading.output, reading.artifacts)
