"""Runs one typed action on one phone, and says for each way it can fail whether it may be tried again."""

import asyncio
import time
from datetime import UTC, datetime

from contracts.android import AndroidExecute
from contracts.errors import CommandError, ErrorCode, Expired, Indeterminate, Transient
from contracts.settings import Settings
from workers.android.actions import Plan, plan
from workers.android.adb import AdbFailure
from workers.android.devices import Fleet, Phone, parse_servers
from workers.handler import Command, Handler, Outcome, Usage

_MARGIN_SECONDS = 0.25
"""Kept back from the deadline, so that what became of the action is said by this handler and not by a cancellation."""


def build(settings: Settings) -> Handler:
    """The handler of `android.execute`.

    Args:
        settings: `adb_servers` says where phones are.

    Raises:
        ValueError: `adb_servers` is malformed.
    """
    fleet = Fleet(parse_servers(settings.adb_servers))

    async def handle(command: Command[AndroidExecute]) -> Outcome:
        return await run_action(fleet, command)

    return handle


async def run_action(fleet: Fleet, command: Command[AndroidExecute]) -> Outcome:
    """Run a command's action on the phone it names, or on any that is ready.

    Args:
        fleet: The phones to choose from.
        command: What to do, and by when.

    Returns:
        `device`, `action`, `duration_ms` and what the action answers.

    Raises:
        CommandError: As drawn in `failure_of`.
    """
    steps = plan(command.payload.root)
    try:
        async with asyncio.timeout(_seconds_left(command)):
            phone = await fleet.pick(command.payload.device)
        async with fleet.alone(phone, wait_seconds=_seconds_left(command)):
            return await _run_on(fleet, phone, command, steps)
    except TimeoutError as error:
        raise Expired(ErrorCode.DEADLINE_PASSED, "no phone was free before the command's deadline") from error


async def _run_on(fleet: Fleet, phone: Phone, command: Command[AndroidExecute], steps: Plan) -> Outcome:
    payload = command.payload
    started = time.monotonic()
    try:
        output = await phone.transport.server.shell(
            phone.transport.serial,
            steps.line,
            timeout_seconds=min(payload.timeout_seconds, _seconds_left(command)),
            max_output_bytes=steps.max_output_bytes,
        )
    except AdbFailure as failure:
        fleet.shun(phone)
        raise failure_of(failure, repeatable=payload.repeatable, device=phone.serial) from failure
    duration_ms = round(1000 * (time.monotonic() - started), 1)
    reading = await asyncio.to_thread(steps.read, output)
    facts = {"device": phone.serial, "action": payload.root.action, "duration_ms": duration_ms}
    return Outcome(facts | reading.output, artifacts=reading.artifacts, usage=Usage(target=phone.serial))


def failure_of(failure: AdbFailure, *, repeatable: bool, device: str) -> CommandError:
    """What a missing answer means for the command.

        the line never left      -> Transient, try again
        it may have run, and
          running it twice is safe -> Transient, try again
          it is not                -> Indeterminate, a person looks at the phone

    Args:
        failure: What adb reported.
        repeatable: Whether running the action twice does no harm.
        device: The phone's serial number.
    """
    details = {"device": device, "cause": failure.code.value}
    if failure.begun and not repeatable:
        sentence = f"the action may or may not have happened: {failure.message}"
        return Indeterminate(ErrorCode.INDETERMINATE, sentence, details=details)
    return Transient(failure.code, failure.message, details=details)


def _seconds_left(command: Command[AndroidExecute]) -> float:
    left_seconds = (command.deadline_at - datetime.now(UTC)).total_seconds() - _MARGIN_SECONDS
    if left_seconds <= 0:
        raise Expired(ErrorCode.DEADLINE_PASSED, "the command's deadline passed before anything was sent to a phone")
    return left_seconds
