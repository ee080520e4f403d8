"""Actions that move files: push, pull, installing an APK, recording the screen; and removing an app."""

import base64
import shlex
from pathlib import PurePosixPath

from contracts import android_actions as android
from contracts import android_screen_actions as screen_actions
from contracts.errors import ErrorCode, Permanent
from workers.android.readings import Reading, artifact_reading, failure, succeeded, text_of
from workers.android.session import Session

_APK = "/data/local/tmp/ish.install.apk"
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
        content = base64.b64decode(action.content_base64 or "")
    await session.write_file(action.path, content)
    return Reading({"path": action.path, "size_bytes": len(content)})


async def pull(session: Session, action: android.Pull) -> Reading:
    """A file of the phone as an artifact.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: There is no such file, adb may not read it, or it is too large.
    """
    content = await session.read_file(action.path)
    reading = artifact_reading(content, _TYPES.get(PurePosixPath(action.path).suffix.lower(), _OTHER_TYPE))
    return Reading({"path": action.path, **reading.output}, reading.artifacts)


async def install(session: Session, action: android.Install) -> Reading:
    """Install an APK.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: The phone refused it, or there is no such artifact.
    """
    path = action.path or _APK
    if action.artifact is not None:
        await session.write_file(_APK, await session.artifact(action.artifact))
    flags = [*(["-r"] if action.replace else []), *(["-g"] if action.grant_permissions else [])]
    try:
        output = await session.line(shlex.join(["pm", "install", *flags, path]), effect=not action.repeatable)
    finally:
        if action.artifact is not None:
            await session.clean(f"rm -f {_APK}")
    if output.exit_code or b"Success" not in output.stdout:
        raise failure(output)
    return Reading({"installed": True})


async def uninstall(session: Session, action: android.Uninstall) -> Reading:
    """Remove an app, if it is installed.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: The phone refused.
    """
    known = await session.line(f"pm path {action.package}", effect=False)
    was_installed = known.stdout.startswith(b"package:")
    if was_installed:
        output = await session.line(f"pm uninstall {action.package}", effect=False)
        if output.exit_code or b"Success" not in output.stdout:
            raise failure(output)
    return Reading({"package": action.package, "was_installed": was_installed})


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
