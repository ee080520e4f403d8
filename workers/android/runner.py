"""Runs one action on one given phone: simple ones as a line, others step by step, batches and flows as what they hold."""

import asyncio
import time
from typing import Any

import orjson

from contracts.android import actions as android
from contracts.android import screen_actions
from contracts.errors import Cancelled, CommandError, ErrorCode, Permanent
from workers.android import apps, files, installing, keyboard, pictures, screen
from workers.android.actions import plan
from workers.android.adb.server import AdbFailure
from workers.android.elements import Element, Screen
from workers.android.flows import catalog
from workers.android.flows.engine import Engine
from workers.android.readings import Reading
from workers.android.session import Check, FetchArtifact, ScreenMemory, Session, Transport
from workers.cancellation import Cancellation
from workers.handler import Artifact, StoredArtifact

_AT_ONCE_BYTES = 64 * 1024
"""Longer output is read in a thread, so that other phones need not wait."""
_MAX_BATCH_BYTES = 8 * 1024 * 1024
"""What the actions of a batch may answer together; their artifacts may hold as much as one artifact."""


async def no_artifacts(sha256: str) -> StoredArtifact | None:
    """Nobody's artifacts: for workers that cannot reach any.

    Args:
        sha256: The artifact's.
    """
    del sha256
    return None


async def run_action(
    transport: Transport,
    action: android.Action,
    *,
    deadline: float,
    fence: str | None,
    artifact_limit_bytes: int,
    fetch: FetchArtifact = no_artifacts,
    check: Check | None = None,
    screen: ScreenMemory | None = None,
    cancellation: Cancellation | None = None,
) -> Reading:
    """Run an action, all of it under its own time limit.

    Args:
        transport: The way to the phone; nobody else may use the phone meanwhile.
        action: What to do.
        deadline: `time.monotonic()` at which it must be over at the latest.
        fence: Number that the phone must hold in `session.FENCE_FILE`, or every line is refused by the phone itself; None
            sends lines as they are.
        artifact_limit_bytes: The largest picture or file that is taken from the phone.
        fetch: Gets the owner's artifacts, for those that put one on the phone.
        check: Called right before anything is sent to the phone; raises a `CommandError` when nothing may be any more.
        screen: What is remembered of the phone's screen, for its next command; None forgets it.
        cancellation: Whether its owner wants it stopped.

    Returns:
        What it answers, and the artifacts that it made.

    Raises:
        CommandError: Transient when nothing that must not happen twice can have happened, Indeterminate when something
            may have, Permanent when the phone said no. One that comes of a lost answer has an `AdbFailure` as its cause.
    """
    session = Session(
        transport,
        deadline=deadline,
        fence=fence,
        artifact_limit_bytes=artifact_limit_bytes,
        fetch=fetch,
        check=check,
        screen=screen,
        cancellation=cancellation,
    )
    try:
        with session.within(action.timeout_seconds):
            return await _perform(session, action)
    except AdbFailure as failure:
        raise session.lost(failure) from failure
    except Cancelled as error:
        error.details = {**error.details, "had_effect": session.touched}
        raise
    except CommandError as error:
        settled = session.settled(error)
        if settled is error:
            raise
        raise settled from error


async def _perform(session: Session, action: android.Action) -> Reading:
    """What the action is on a phone; one that must not be cut in two is finished also when it is cancelled."""
    session.check_cancelled()
    if action.stoppable:
        return await _carry_out(session, action)
    with session.undisturbed():
        return await _carry_out(session, action)


async def _carry_out(session: Session, action: android.Action) -> Reading:
    match action:
        case android.Batch():
            reading = await _perform_batch(session, action)
        case android.RunFlow():
            app, flow = catalog.find(action.name, action.inputs)
            reading = await Engine(action.name, app, flow, action.inputs, _PhoneStage(session)).run()
        case screen_actions.TypeText():
            reading = await _type(session, action)
        case screen_actions.ClearText():
            reading = await keyboard.clear_text(session)
        case screen_actions.DumpScreen():
            reading = await screen.dump(session)
        case screen_actions.Find():
            reading = await screen.find(session, action)
        case screen_actions.WaitFor():
            reading = await screen.wait_for(session, action)
        case screen_actions.TapOn():
            reading = await screen.tap_on(session, action)
        case screen_actions.TakeScreenshot(display=int(display)):
            reading = await pictures.screenshot(session, display=display)
        case _:
            reading = await _perform_with_apps(session, action)
    return reading


async def _perform_with_apps(session: Session, action: android.SingleAction) -> Reading:
    match action:
        case android.StartApp():
            return await apps.start_app(session, action)
        case android.ListPackages():
            return await apps.list_packages(session, action)
        case android.RunShell():
            return await _perform_line(session, await apps.for_current_user(session, action))
        case _:
            return await _perform_with_files(session, action)


async def _type(session: Session, action: screen_actions.TypeText) -> Reading:
    """Type a text; of a secret one nothing is told that the phone may have printed of it."""
    if action.text is None:
        sentence = "the secret to type was kept nowhere but in the broker, which has lost it: send the command again"
        raise Permanent(ErrorCode.SECRET_GONE, sentence)
    if not action.secret:
        return await keyboard.type_text(session, action.text)
    try:
        return await keyboard.type_text(session, action.text)
    except Permanent as error:
        if error.code is ErrorCode.UNSUPPORTED_TEXT_INPUT:
            raise
        sentence = "the phone did not take the secret text; what it printed is not told"
        raise Permanent(error.code, sentence, details={"exit_code": error.details.get("exit_code")}) from None


async def _perform_with_files(session: Session, action: android.SingleAction) -> Reading:
    match action:
        case android.Push():
            return await files.push(session, action)
        case android.Pull():
            return await files.pull(session, action)
        case android.Install():
            return await installing.install(session, action)
        case android.Uninstall():
            return await installing.uninstall(session, action)
        case screen_actions.RecordScreen():
            return await files.record(session, action)
        case _:
            return await _perform_line(session, action)


async def _perform_line(session: Session, action: android.SingleAction) -> Reading:
    steps = plan(action)
    limit_bytes = session.artifact_limit_bytes if steps.max_output_bytes is None else steps.max_output_bytes
    output = await session.line(steps.line, effect=not action.repeatable, max_output_bytes=limit_bytes)
    if len(output.stdout) > _AT_ONCE_BYTES:
        return await asyncio.to_thread(steps.read, output)
    return steps.read(output)


async def _perform_batch(session: Session, batch: android.Batch) -> Reading:
    """Each action in turn; an error tells which one failed, and what those before it answered."""
    results: list[dict[str, Any]] = []
    artifacts: list[Artifact] = []
    output_bytes = artifact_bytes = 0
    for position, action in enumerate(batch.actions):
        started = time.monotonic()
        try:
            with session.within(action.timeout_seconds):
                reading = await _perform(session, action)
        except AdbFailure as failure:
            raise _failed_at(position, action, session.lost(failure), results) from failure
        except CommandError as error:
            raise _failed_at(position, action, session.settled(error), results) from error
        duration_ms = round(1000 * (time.monotonic() - started), 1)
        results.append({"action": action.action, "duration_ms": duration_ms, **reading.output})
        artifacts.extend(reading.artifacts)
        output_bytes += len(orjson.dumps(reading.output))
        artifact_bytes += sum(len(artifact.content) for artifact in reading.artifacts)
        if output_bytes > _MAX_BATCH_BYTES or artifact_bytes > session.artifact_limit_bytes:
            sentence = "the batch's results are larger than one result may be; send it in parts"
            raise _failed_at(position, action, Permanent(ErrorCode.TRUNCATED, sentence), results[:-1])
    return Reading({"results": results}, tuple(artifacts))


def _failed_at(
    position: int, action: android.SingleAction, error: CommandError, results: list[dict[str, Any]]
) -> CommandError:
    # artifacts are stored with an outcome only, so that their addresses would lead nowhere
    done = [{name: value for name, value in result.items() if name != "artifact"} for result in results]
    error.details = {**error.details, "failed_action": position, "results": done}
    error.message = f"actions.{position} ({action.action}): {error.message}"
    error.args = (error.message,)
    return error


class _PhoneStage:
    """A session as a flow sees it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def seconds_left(self) -> float:
        return self._session.seconds_left

    async def run(self, action: android.SingleAction) -> Reading:
        return await _perform(self._session, action)

    async def look(self) -> Screen:
        return await screen.look_once(self._session)

    async def tap(self, element: Element) -> None:
        await screen.tap_element(self._session, element)
