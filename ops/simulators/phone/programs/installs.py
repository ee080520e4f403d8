"""`pm install` and install sessions on the simulated phone, with the refusals of a real package manager."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from ops.simulators.phone.apk import Apk, NotAnApk, read_apk
from ops.simulators.phone.apps.installed import InstalledApp
from ops.simulators.phone.files import FileError
from ops.simulators.phone.programs.call import Call

_SECONDS = 0.05
_VALUED = ("-i", "--user", "--abi", "--pkg", "--install-location")
_numbers = count(1001)


@dataclass(slots=True)
class InstallSession:
    """APKs that are gathered until they are installed together."""

    flags: frozenset[str]
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Words:
    """What a command line asks for."""

    flags: set[str] = field(default_factory=set)
    paths: list[str] = field(default_factory=list)
    size_bytes: int | None = None


class _Refusal(Exception):
    """What stands in the brackets of `Failure [...]`."""


def _read(words: Sequence[str]) -> _Words:
    left, read = list(words), _Words()
    while left:
        word = left.pop(0)
        if word == "-S" and left and left[0].isdigit():
            read.size_bytes = int(left.pop(0))
        elif word in _VALUED and left:
            left.pop(0)
        elif word.startswith("-") and word != "-":
            read.flags.add(word)
        else:
            read.paths.append(word)
    return read


async def install(call: Call, words: Sequence[str]) -> int:
    """`pm install [flags] FILE`, or `-S SIZE` with the APK as input."""
    asked = _read(words)
    old = call.device.behaviour.old_installer
    if old and asked.paths:
        call.say(f"\tpkg: {asked.paths[0]}")
    if old and "-R" in asked.flags:
        return call.fail("Error: Unknown option: -R", 1)
    if asked.size_bytes is None and len(asked.paths) != 1:
        return call.fail("Error: must either specify a package size or an APK file", 1)
    content = await _content(call, asked)
    if isinstance(content, int):
        return content
    return await _finish(call, {"base.apk": content}, frozenset(asked.flags))


async def install_create(call: Call, words: Sequence[str]) -> int:
    """`pm install-create [flags] -S TOTAL`."""
    number = next(_numbers)
    call.device.install_sessions[number] = InstallSession(frozenset(_read(words).flags))
    return call.say(f"Success: created install session [{number}]")


async def install_write(call: Call, words: Sequence[str]) -> int:
    """`pm install-write -S SIZE SESSION NAME [FILE|-]`."""
    asked = _read(words)
    number, name, *path = (*asked.paths, "", "")[: max(2, len(asked.paths))]
    session = _session(call, number)
    if session is None:
        return call.fail(f"java.lang.SecurityException: Caller has no access to session {number}")
    content = await _content(call, _Words(paths=[one for one in path if one != "-"], size_bytes=asked.size_bytes))
    if isinstance(content, int):
        return content
    session.files[name] = content
    return call.say(f"Success: streamed {len(content)} bytes")


async def install_commit(call: Call, words: Sequence[str]) -> int:
    """`pm install-commit SESSION`: all of its APKs or none."""
    session = _session(call, words[-1] if words else "")
    if session is None:
        return call.fail("java.lang.SecurityException: Caller has no access to session")
    del call.device.install_sessions[int(words[-1])]
    return await _finish(call, session.files, session.flags)


async def install_abandon(call: Call, words: Sequence[str]) -> int:
    """`pm install-abandon SESSION`."""
    if _session(call, words[-1] if words else "") is None:
        return call.fail("java.lang.SecurityException: Caller has no access to session")
    del call.device.install_sessions[int(words[-1])]
    return call.say("Success")


VERBS = {
    "install": install,
    "install-create": install_create,
    "install-write": install_write,
    "install-commit": install_commit,
    "install-abandon": install_abandon,
}


def _session(call: Call, number: str) -> InstallSession | None:
    return call.device.install_sessions.get(int(number)) if number.isdigit() else None


async def _content(call: Call, asked: _Words) -> bytes | int:
    """An APK's bytes; or the exit code, when there are none."""
    if asked.paths:
        try:
            return b"".join(call.device.files.read(asked.paths[0]).chunks())
        except FileError:
            path = asked.paths[0]
            return call.fail(f"Error: Unable to open file: {path}\nConsider using a file under /data/local/tmp/", 1)
    size_bytes = asked.size_bytes or 0
    content = await call.stdin.read_exactly(size_bytes)
    if len(content) < size_bytes:
        return call.fail("Failure [INSTALL_FAILED_INVALID_APK: the stream ended early]", 1)
    return content


async def _finish(call: Call, files: dict[str, bytes], flags: frozenset[str]) -> int:
    try:
        app = await _accepted(call, files, flags)
    except _Refusal as refusal:
        call.say(f"Failure [{refusal}]")
        return 0 if call.device.behaviour.old_installer else 1
    call.effect(
        "install",
        package=app.package,
        size_bytes=sum(len(content) for content in files.values()),
        version_code=app.apk.version_code,
        splits=list(app.splits),
        flags=sorted(flags),
    )
    await call.last(_SECONDS)
    call.device.screen.apps[app.package] = app
    call.device.log.write("I", "PackageManager", f"installed {app.package}")
    return call.say("Success")


async def _accepted(call: Call, files: dict[str, bytes], flags: frozenset[str]) -> InstalledApp:
    """The app that these APKs are, if the phone takes it."""
    refusal = call.device.behaviour.install_refusal
    if refusal is not None:
        raise _Refusal(refusal)
    try:
        apks = [await asyncio.to_thread(read_apk, content) for content in files.values()]
    except NotAnApk as error:
        raise _Refusal(f"INSTALL_PARSE_FAILED_NOT_APK: {error}") from error
    base = next((apk for apk in apks if apk.split is None), None)
    if base is None:
        raise _Refusal("INSTALL_FAILED_INVALID_APK: Full install must include a base package")
    if any(
        (apk.package, apk.version_code, apk.signer) != (base.package, base.version_code, base.signer) for apk in apks
    ):
        raise _Refusal("INSTALL_FAILED_INVALID_APK: the APKs of a session are of different apps or versions")
    if base.split_required and len(apks) == 1:
        raise _Refusal(f"INSTALL_FAILED_MISSING_SPLIT: Missing split for {base.package}")
    if base.test_only and "-t" not in flags:
        raise _Refusal("INSTALL_FAILED_TEST_ONLY: installPackageLI")
    _compare(call, base, flags)
    return InstalledApp(base, splits=tuple(sorted(apk.split for apk in apks if apk.split is not None)))


def _compare(call: Call, base: Apk, flags: frozenset[str]) -> None:
    """Refuse what does not go with the version that is there."""
    present = call.device.screen.apps.get(base.package)
    if present is None:
        return
    must_say = call.device.behaviour.old_installer
    if "-R" in flags or (must_say and "-r" not in flags):
        raise _Refusal(
            f"INSTALL_FAILED_ALREADY_EXISTS: Attempt to re-install {base.package} without first uninstalling."
        )
    if not isinstance(present, InstalledApp) or present.apk.signer != base.signer:
        raise _Refusal(
            f"INSTALL_FAILED_UPDATE_INCOMPATIBLE: Existing package {base.package} signatures do not match newer version; "
            "ignoring!"
        )
    if base.version_code < present.apk.version_code and "-d" not in flags:
        raise _Refusal(
            f"INSTALL_FAILED_VERSION_DOWNGRADE: Downgrade detected: Update version code {base.version_code} is older than "
            f"current {present.apk.version_code}"
        )
