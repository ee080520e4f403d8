"""Actions on a phone's apps: starting one by its icon, and listing them; all for the phone's current user.

A phone may have several users: a work profile, a vendor's secure folder. `pm` takes all of them unless it is told one, and
fails where adb may not look into one of them.
"""

import re
import shlex

from contracts.android import actions as android
from contracts.errors import ErrorCode, Permanent
from workers.android.adb.server import ShellOutput
from workers.android.readings import Reading, failure, read_started, succeeded, text_of
from workers.android.reasons import complains
from workers.android.reports import read_packages
from workers.android.session import Session

_FIRST_USER = "0"
_USER = re.compile(rb"^\s*([0-9]{1,6})\s*$", re.MULTILINE)
_LAUNCHER = "-a android.intent.action.MAIN -c android.intent.category.LAUNCHER"
# as a launcher starts an app: in a task of its own, or that task as it was left
_AS_A_LAUNCHER = f"{_LAUNCHER} -f 0x10200000"
_COMPONENT = re.compile(r"\s*([A-Za-z][\w.]*)/([\w.$]+)\s*")
_UNKNOWN_TO_OLD_PHONES = re.compile(rb"not found|unknown command", re.IGNORECASE)
_NO_SERVICE = b"Can't find service"
_FLAGS = {"all": "", "third_party": " -3", "system": " -s"}
_OF_ALL_USERS = (("pm", "list", "packages"), ("pm", "path"))
"""What shell actions may run and what fails for a user that adb may not look into."""


async def current_user(session: Session) -> str:
    """The number of the user whose screen the phone shows; 0 on phones that cannot tell.

    Raises:
        AdbFailure: The phone went away or took too long.
    """
    if session.user is None:
        output = await session.line("am get-current-user", effect=False)
        told = _USER.search(output.stdout)
        session.user = told[1].decode() if told and not output.exit_code else _FIRST_USER
    return session.user


async def start_app(session: Session, action: android.StartApp) -> Reading:
    """Bring an app to the front.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: It is not installed, has no activity that a launcher shows, or did not start.
    """
    started = {"package": action.package} | ({"activity": action.activity} if action.activity else {})
    if action.activity is not None:
        line = f"am start -n {shlex.quote(f'{action.package}/{action.activity}')}"
    elif (component := await _launched(session, action.package)) is not None:
        line = f"am start {_AS_A_LAUNCHER} -n {shlex.quote(component)}"
    else:
        # some phones have no key that would be a "system key", and monkey refuses to run without any
        line = f"monkey -p {action.package} -c android.intent.category.LAUNCHER --pct-syskeys 0 1"
    return read_started(await session.line(line, effect=not action.repeatable), started)


async def _launched(session: Session, package: str) -> str | None:
    """The activity that an app's icon opens; None when the phone is too old to be asked.

    Raises:
        Permanent: There is none.
    """
    user = await current_user(session)
    output = await session.line(
        f"cmd package resolve-activity --brief --user {user} {_LAUNCHER} {package}", effect=False
    )
    found = _components(output)
    if found and not any(owner == package for owner, _ in found):
        # several icons: Android answers with its own page that asks which
        query = f"cmd package query-activities --brief --user {user} {_LAUNCHER} {package}"
        found = _components(await session.line(query, effect=False))
    activity = next((activity for owner, activity in found if owner == package), None)
    if activity is not None:
        return f"{package}/{activity}"
    printed = output.stdout + output.stderr
    if _NO_SERVICE in printed:
        raise failure(output)
    if output.exit_code and _UNKNOWN_TO_OLD_PHONES.search(printed):
        return None
    raise await _nothing_to_start(session, package, user=user)


def _components(output: ShellOutput) -> list[tuple[str, str]]:
    matches = (_COMPONENT.fullmatch(line) for line in text_of(output.stdout).splitlines())
    return [(match[1], match[2]) for match in matches if match is not None]


async def _nothing_to_start(session: Session, package: str, *, user: str) -> Permanent:
    installed = await is_installed(session, package)
    if installed:
        sentence = f"{package} has no activity that a launcher shows; say which one to start with `activity`"
    else:
        sentence = f"{package} is not installed on this phone for its current user ({user})"
    return Permanent(ErrorCode.NONZERO_EXIT, sentence, details={"package": package, "installed": installed})


async def list_packages(session: Session, action: android.ListPackages) -> Reading:
    """The apps that the phone's current user has.

    Raises:
        AdbFailure: The phone went away or took too long.
        CommandError: The phone does not tell them.
    """
    packages = await installed_packages(session, kind=action.kind)
    return Reading({"packages": packages, "count": len(packages)})


async def for_current_user(session: Session, action: android.RunShell) -> android.RunShell:
    """The same line with the current user where it would otherwise ask about all of them.

    Raises:
        AdbFailure: The phone went away or took too long.
    """
    verb = next((words for words in _OF_ALL_USERS if action.argv[: len(words)] == words), None)
    if verb is None or "--user" in action.argv:
        return action
    user = await current_user(session)
    return action.model_copy(update={"argv": (*verb, "--user", user, *action.argv[len(verb) :])})


async def is_installed(session: Session, package: str) -> bool:
    """Whether the phone's current user has an app.

    Raises:
        AdbFailure: The phone went away or took too long.
        Permanent: The phone does not tell.
    """
    output = await session.line(f"pm path --user {await current_user(session)} {package}", effect=False)
    if any(line.startswith(b"package:") for line in output.stdout.splitlines()):
        return True
    if complains(output) or _NO_SERVICE in output.stderr:
        raise failure(output)
    return False


async def installed_packages(session: Session, *, kind: str) -> list[str]:
    """The apps that the phone's current user has.

    Args:
        session: The phone.
        kind: As `ListPackages` has it.

    Raises:
        AdbFailure: The phone went away or took too long.
        Permanent: The phone does not tell.
    """
    user = await current_user(session)
    output = await session.line(f"pm list packages{_FLAGS[kind]} --user {user}", effect=False)
    packages = read_packages(text_of(succeeded(output)))
    if not packages and complains(output):
        raise failure(output)
    return packages
