"""One run of a claimed command: calls its handler under its deadline and turns whatever happens into what to commit."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid5

from contracts.commands import KINDS, encode_payload, payload_from
from contracts.envelope import Envelope
from contracts.errors import CommandError, Deferred, ErrorCode, Expired, Indeterminate, Permanent, Transient
from contracts.logs import get_logger
from contracts.restarting import tell_fault, was_cancelled
from contracts.results import State, encode_result, state_of
from workers.cancellation import cancelled
from workers.handler import FollowUp, Handler, Outcome
from workers.retry_policy import GiveUp, next_try, too_late
from workers.stages import Claimed, Finished

_log = get_logger()

MAX_ALONE = 2
"""Runs with nothing else in flight before a command that keeps killing its worker is given up."""


async def run(claimed: Claimed, handler: Handler, *, worker: str, max_attempts: int, alone: int = 0) -> Finished:
    """Run one command.

    Args:
        claimed: What this worker holds.
        handler: Of its kind.
        worker: Name of this worker.
        max_attempts: Runs before a transient error is final.
        alone: Times that it was run with nothing else in flight, counting this one; 0 when it is not suspected.

    Returns:
        What to commit. Never raises but for cancellation.
    """
    begun, started_at = time.monotonic(), datetime.now(UTC)
    try:
        _refuse_to_run(claimed, now=started_at, max_attempts=max_attempts, alone=alone)
        outcome = await _call(claimed, handler, now=started_at)
        return finish(claimed, outcome, worker=worker, started_at=started_at, seconds=time.monotonic() - begun)
    except CommandError as error:
        failure = error
    except Exception as error:  # noqa: BLE001  # a result that cannot be made fails its command, and not the worker
        tell_fault("run", error, command_id=str(claimed.admitted.envelope.id))
        failure = Permanent(ErrorCode.INTERNAL, f"its result cannot be made: {type(error).__name__}")
    give_up = partial(fail, claimed, failure, worker=worker, max_attempts=max_attempts, started_at=started_at)
    try:
        return give_up(seconds=time.monotonic() - begun)
    except TypeError:  # the details of its error are no JSON
        failure.details = {}
        return give_up(seconds=time.monotonic() - begun)


def _refuse_to_run(claimed: Claimed, *, now: datetime, max_attempts: int, alone: int) -> None:
    """Raise what is known before the handler is called."""
    if claimed.admitted.fault is not None:
        raise claimed.admitted.fault
    if claimed.interrupted:
        raise Indeterminate(
            ErrorCode.INDETERMINATE,
            "the worker that ran it went away; whether it took effect is unknown, and it is not repeated",
        )
    claimed.cancellation.check()
    if now >= claimed.admitted.envelope.deadline_at:
        raise too_late("its deadline had passed before it could run", waited_for=claimed.last_error)
    if alone > MAX_ALONE:
        raise Permanent(
            ErrorCode.POISON,
            f"it was in flight in {claimed.crashes} crashes and crashed its worker {alone - 1} times when run alone",
        )
    if claimed.attempt > max_attempts:
        raise Permanent(ErrorCode.ATTEMPTS_EXHAUSTED, f"not finished in {max_attempts} attempts")


async def _call(claimed: Claimed, handler: Handler, *, now: datetime) -> Outcome:
    envelope = claimed.admitted.envelope
    seconds_left = (envelope.deadline_at - now).total_seconds()
    try:
        async with asyncio.timeout(seconds_left):
            return await handler(claimed.command())
    except CommandError:
        raise
    except TimeoutError:
        if claimed.admitted.repeatable:
            raise Expired(ErrorCode.DEADLINE_PASSED, "its deadline passed while it ran") from None
        raise Indeterminate(
            ErrorCode.INDETERMINATE, "its deadline passed while it ran; whether it took effect is unknown"
        ) from None
    except asyncio.CancelledError as error:
        if was_cancelled():
            raise
        raise _crashed(claimed, error) from error
    except Exception as error:
        raise _crashed(claimed, error) from error


def _crashed(claimed: Claimed, error: BaseException) -> CommandError:
    """What a handler's bug means for its command; it must not take the neighbours down."""
    envelope = claimed.admitted.envelope
    _log.exception("command_crashed", command_id=str(envelope.id), kind=envelope.kind.name, attempt=claimed.attempt)
    sentence = f"the handler raised {type(error).__name__}"
    if claimed.admitted.repeatable:
        return Transient(ErrorCode.INTERNAL, sentence)
    return Indeterminate(ErrorCode.INTERNAL, f"{sentence}; whether it took effect is unknown")


def finish(claimed: Claimed, outcome: Outcome, *, worker: str, started_at: datetime, seconds: float) -> Finished:
    """A run that succeeded.

    Args:
        claimed: The command.
        outcome: What its handler returned.
        worker: Name of this worker.
        started_at: When this run began.
        seconds: How long it took.

    Raises:
        Permanent: The outcome is not JSON-ready, or a follow-up does not fit its kind (a handler's bug).
    """
    finished_at = started_at + timedelta(seconds=seconds)
    # what a follow-up records stands behind what its parent recorded; the wire carries milliseconds
    children = follow_ups(claimed.admitted.envelope, outcome, accepted_at=finished_at + timedelta(milliseconds=1))
    links = {"follow_ups": [str(child.id) for child, _ in children]} if children else {}
    try:
        result = encode_result(
            claimed.admitted.envelope,
            State.SUCCEEDED,
            output={**outcome.output, **links},
            attempts=claimed.attempt,
            started_at=claimed.started_at,
            finished_at=finished_at,
            worker=worker,
        )
    except TypeError as error:
        raise Permanent(ErrorCode.INTERNAL, f"the handler's output is not JSON: {error}") from error
    return Finished(
        claimed,
        State.SUCCEEDED,
        run_started_at=started_at,
        finished_at=finished_at,
        duration_seconds=seconds,
        outcome=outcome,
        result=result,
        follow_ups=children,
    )


def fail(
    claimed: Claimed, error: CommandError, *, worker: str, max_attempts: int, started_at: datetime, seconds: float
) -> Finished:
    """A run that did not succeed: tried again later, or ended.

    Args:
        claimed: The command.
        error: What went wrong.
        worker: Name of this worker.
        max_attempts: Runs before a transient error is final.
        started_at: When this run began.
        seconds: How long it took.
    """
    envelope = claimed.admitted.envelope
    finished_at = started_at + timedelta(seconds=seconds)
    final = error
    if isinstance(error, Transient) and claimed.cancellation.requested:
        final = cancelled()
        final.details = {"last_error": error.code.value, **error.details}
        final.spent = error.spent
    elif isinstance(error, Transient):
        deferred = isinstance(error, Deferred)
        decision = next_try(
            attempt=claimed.attempt,
            max_attempts=claimed.attempt + 1 if deferred else max_attempts,
            retry_after_seconds=error.retry_after_seconds,
            deadline_at=envelope.deadline_at,
            now=finished_at,
        )
        if not isinstance(decision, GiveUp):
            return Finished(
                claimed,
                State.RETRYING,
                run_started_at=started_at,
                finished_at=finished_at,
                duration_seconds=seconds,
                error=error,
                retry_at=decision.at,
                deferred=deferred,
            )
        if decision.expired:
            final = Expired(
                ErrorCode.DEADLINE_PASSED,
                f"its deadline comes before the next try; the last error was {error.code.value}: {error.message}",
                details={"last_error": error.code.value, **error.details},
            )
            final.spent = error.spent
    state = state_of(final)
    return Finished(
        claimed,
        state,
        run_started_at=started_at,
        finished_at=finished_at,
        duration_seconds=seconds,
        error=final,
        result=encode_result(
            envelope,
            state,
            error=final,
            attempts=claimed.attempt,
            started_at=claimed.started_at,
            finished_at=finished_at,
            worker=worker,
        ),
        dead_letter=state is State.FAILED,
    )


def follow_ups(parent: Envelope, outcome: Outcome, *, accepted_at: datetime) -> tuple[tuple[Envelope, bytes], ...]:
    """The commands that an outcome asks for, with ids derived from the parent's: a rerun makes the same ones.

    Args:
        parent: The finished command's envelope.
        outcome: What its handler returned.
        accepted_at: When they were accepted.

    Raises:
        Permanent: A payload does not fit its kind.
    """
    return tuple(_follow_up(parent, part, one, accepted_at) for part, one in enumerate(outcome.follow_ups, start=1))


def _follow_up(parent: Envelope, part: int, follow_up: FollowUp, accepted_at: datetime) -> tuple[Envelope, bytes]:
    kind = KINDS[follow_up.kind]
    body = encode_payload(payload_from(kind, follow_up.payload))
    envelope = Envelope(
        publisher=parent.publisher,
        id=follow_up_id(parent.id, part),
        kind=kind,
        owner=parent.owner,
        accepted_at=accepted_at,
        deadline_at=parent.deadline_at,
        correlation_id=parent.correlation_id,
        traceparent=parent.traceparent,
        priority=parent.priority,
    )
    return envelope, body


def follow_up_id(parent: UUID, part: int) -> UUID:
    """The id of a command's follow-up.

    Args:
        parent: The command's id.
        part: Its place among the follow-ups; first is 1.
    """
    return uuid5(parent, f"follow-up {part}")


def unrepresentable(error: Exception) -> Permanent:
    """Why a row that Postgres refuses fails its command.

    Args:
        error: What the transaction raised; its text may quote data, so only its type is told.
    """
    return Permanent(ErrorCode.UNREPRESENTABLE, f"what it led to cannot be stored: {type(error).__name__}")
