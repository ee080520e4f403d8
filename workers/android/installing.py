"""Installs apps, from one APK or from the split APKs of an app, and removes them; says why the phone refuses one.

    one APK       push it -> pm install <flags> <file> -> remove the file
    split APKs    pm install-create <flags> -> for each: push it, pm install-write -> pm install-commit -> remove the file

An install session is all or nothing: what fails before the commit is abandoned. Files are named after the holder's fence,
so that what a frozen worker goes on writing is never what the phone's next holder installs; their folder is emptied first.
"""

import re
import shlex

from contracts.android import actions as android
from contracts.errors import CommandError, ErrorCode, Permanent
from workers.android.adb.server import AdbFailure, ShellOutput
from workers.android.apps import current_user, installed_packages, is_installed
from workers.android.readings import Reading, failure, text_of
from workers.android.session import Session

_FOLDER = "/data/local/tmp/ish.install"
_EMPTY = f"rm -rf {_FOLDER}"
_SESSION = re.compile(rb"Success:.*\[(\d{1,10})\]")
_REASON = re.compile(r"\b((?:INSTALL|DELETE)_[A-Z0-9_]+)\b(?::\s*([^\]\n]*))?")
_UNKNOWN_R = re.compile(rb"[Uu]nknown option:? -R")
_QUOTED_BYTES = 4000
_HINTS = {
    "INSTALL_FAILED_TEST_ONLY": "the app is marked testOnly: send allow_test: true",
    "INSTALL_FAILED_VERSION_DOWNGRADE": "a newer version is installed: send allow_downgrade: true (debuggable apps "
    "only), or uninstall it first",
    "INSTALL_FAILED_UPDATE_INCOMPATIBLE": "the installed version is signed by somebody else: uninstall it first",
    "INSTALL_FAILED_ALREADY_EXISTS": "it is installed: send replace: true",
    "INSTALL_FAILED_INSUFFICIENT_STORAGE": "the phone's storage is full: remove something",
    "INSTALL_FAILED_USER_RESTRICTED": "the phone asks its user, or forbids it: allow 'Install via USB' in its "
    "developer options and accept there",
    "INSTALL_FAILED_ABORTED": "it was refused on the phone's screen: accept it there",
    "INSTALL_FAILED_VERIFICATION_FAILURE": "the phone's app verifier refused it: switch off 'Verify apps over USB'",
    "INSTALL_FAILED_OLDER_SDK": "the app needs a newer Android than the phone has",
    "INSTALL_FAILED_DEPRECATED_SDK_VERSION": "the app is made for an Android that is too old for this phone",
    "INSTALL_FAILED_NO_MATCHING_ABIS": "the app has no code for this phone's processor",
    "INSTALL_FAILED_MISSING_SPLIT": "a part of a split app is missing: give the base and its splits in artifacts",
    "INSTALL_FAILED_MISSING_SHARED_LIBRARY": "the app needs a library that this phone does not have",
    "INSTALL_FAILED_CONFLICTING_PROVIDER": "another app has the same content provider: uninstall that one",
    "INSTALL_FAILED_DUPLICATE_PERMISSION": "another app defines the same permission: uninstall that one",
    "INSTALL_FAILED_INVALID_APK": "the APKs do not belong together, or one is damaged",
    "INSTALL_PARSE_FAILED_NOT_APK": "the file is no APK, or not all of it",
    "INSTALL_PARSE_FAILED_UNEXPECTED_EXCEPTION": "the file is no APK, or not all of it",
    "INSTALL_PARSE_FAILED_NO_CERTIFICATES": "the APK is not signed, or was changed after it was",
    "INSTALL_PARSE_FAILED_INCONSISTENT_CERTIFICATES": "the installed version is signed by somebody else: uninstall it "
    "first",
    "DELETE_FAILED_DEVICE_POLICY_MANAGER": "the app administers the phone: take that from it in the settings first",
    "DELETE_FAILED_INTERNAL_ERROR": "the app is part of the system, or of another user",
}


async def install(session: Session, action: android.Install) -> Reading:
    """Install an app.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: The phone refused it, or there is no such artifact.
    """
    sources = action.sources
    if action.path is not None:
        await _install_file(session, action, action.path)
    elif len(sources) == 1:
        path = _file(session)
        try:
            await session.clean(_EMPTY)
            await session.write_file(path, await session.artifact(sources[0]))
            await _install_file(session, action, path)
        finally:
            await session.clean(_EMPTY)
    else:
        await _install_parts(session, action, sources)
    return Reading({"installed": True})


async def _install_file(session: Session, action: android.Install, path: str) -> None:
    _check(await _with_flags(session, "install", action, path, effect=not action.repeatable))


async def _with_flags(session: Session, verb: str, action: android.Install, *words: str, effect: bool) -> ShellOutput:
    """Run `pm VERB` with the action's flags; Android 8 and older replace nothing unless told, and know no `-R`."""
    flags = [*action.flags, "--user", await current_user(session)]
    output = await session.line(shlex.join(["pm", verb, *flags, *words]), effect=effect)
    if "-R" in flags and _UNKNOWN_R.search(output.stdout + output.stderr):
        flags.remove("-R")
        output = await session.line(shlex.join(["pm", verb, *flags, *words]), effect=effect)
    return output


async def _install_parts(session: Session, action: android.Install, sources: tuple[str, ...]) -> None:
    """Install split APKs in a session: all of them or none."""
    stored = [await session.artifact(sha256) for sha256 in sources]
    await session.clean(_EMPTY)
    total_bytes = sum(one.size_bytes for one in stored)
    created = await _with_flags(session, "install-create", action, "-S", str(total_bytes), effect=False)
    match = _SESSION.search(created.stdout)
    if created.exit_code or match is None:
        raise refusal(created, field="install_error")
    number, path = match[1].decode(), _file(session)
    try:
        for place, (sha256, content) in enumerate(zip(sources, stored, strict=True)):
            await session.write_file(path, content)
            name = f"{place}_{sha256[:12]}.apk"
            line = f"pm install-write -S {content.size_bytes} {number} {name} {path}"
            _check(await session.line(line, effect=False))
        _check(await session.line(f"pm install-commit {number}", effect=not action.repeatable))
    except (CommandError, AdbFailure):
        await session.clean(f"pm install-abandon {number}")
        raise
    finally:
        await session.clean(_EMPTY)


async def uninstall(session: Session, action: android.Uninstall) -> Reading:
    """Remove an app, if it is installed.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: The phone refused.
    """
    was_installed = await is_installed(session, action.package)
    if was_installed:
        # a part of the phone itself would only be hidden from the user: without one, Android refuses as it should
        brought = action.package in await installed_packages(session, kind="third_party")
        scope = f" --user {await current_user(session)}" if brought else ""
        output = await session.line(f"pm uninstall{scope} {action.package}", effect=False)
        if not _succeeded(output):
            raise refusal(output, field="uninstall_error")
    return Reading({"package": action.package, "was_installed": was_installed})


def _check(output: ShellOutput) -> None:
    if not _succeeded(output):
        raise refusal(output, field="install_error")


def _succeeded(output: ShellOutput) -> bool:
    # old versions exit 0 whatever happened, and print `pkg: <file>` first; new ones may print warnings
    return not output.exit_code and any(line.startswith(b"Success") for line in output.stdout.splitlines())


def refusal(output: ShellOutput, *, field: str) -> Permanent:
    """Why the package manager refused, with its own code as a field of the details.

    Args:
        output: What it printed.
        field: The field's name.
    """
    said = text_of(output.stdout[-_QUOTED_BYTES:] + b"\n" + output.stderr[-_QUOTED_BYTES:])
    match = _REASON.search(said)
    if match is None:
        return failure(output)
    code, reason = match[1], (match[2] or "").strip()
    hint = _HINTS.get(code)
    sentence = f"the phone refused: {code}" + (f": {reason}" if reason else "") + (f"; {hint}" if hint else "")
    details = {field: code, "reason": reason, "exit_code": output.exit_code} | ({"hint": hint} if hint else {})
    return Permanent(ErrorCode.NONZERO_EXIT, sentence, details=details)


def _file(session: Session) -> str:
    return f"{_FOLDER}/{session.fence or 0}.apk"
