"""Decides, without any I/O, which phone gets a command that came for any phone, or by name or tag, to `ish.android`."""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.android.command import AndroidExecute
from contracts.errors import CommandError, Deferred, ErrorCode, Permanent
from workers.android.adb.server import AdbFailure
from workers.android.adb.states import (
    LOOK_AGAIN_SECONDS,
    READY,
    UNSUPPORTED,
    needs_permission,
    not_configured,
    not_ready,
    unsupported,
)

_AGAIN_SECONDS = 5.0
"""Long enough to wait in the broker."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A phone, as far as choosing one needs it."""

    serial: str
    transport: str
    state: str
    hint: str | None
    tags: frozenset[str]
    here: bool
    """Whether this worker holds it."""
    open: bool
    """Whether its queue is consumed, so that what is published to it is not lost."""
    idle: bool
    """Healthy, held, open, and nothing waits for it or runs on it."""
    reported: str | None = None
    """Its `ro.serialno`, which others may have as well."""


@dataclass(frozen=True, slots=True)
class To:
    """Give it to this phone."""

    serial: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A phone will do, but not now."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """None will do; the error says whether that may change."""

    error: CommandError


def choose(
    payload: AndroidExecute, candidates: Sequence[Candidate], *, failure: AdbFailure | None
) -> To | Wait | Refuse:
    """Find a phone.

    Args:
        payload: The command.
        candidates: Every phone known.
        failure: Why an adb server does not answer, if one does not: there may be more phones than are known.
    """
    if payload.device is not None:
        return _by_name(payload.device, candidates, failure)
    tag = payload.tag
    fitting = [one for one in candidates if tag is None or tag in one.tags]
    idle = [one for one in fitting if one.idle]
    if idle:
        return To(min(idle, key=lambda one: not one.here).serial)
    if any(one.state == READY for one in fitting):
        return Wait()
    if fitting:
        return Refuse(_why(fitting, failure))
    if tag is not None and candidates:
        return Refuse(Permanent(ErrorCode.DEVICE_NOT_FOUND, f"no phone has the tag {tag}"))
    return Refuse(_nothing_known(failure))


def _by_name(name: str, candidates: Sequence[Candidate], failure: AdbFailure | None) -> To | Refuse:
    called = [one for one in candidates if name == one.transport]
    named = next((one for one in candidates if name == one.serial), called[0] if len(called) == 1 else None)
    if named is not None:
        return To(named.serial) if named.open else Refuse(_why([named], failure))
    alike = called or [one for one in candidates if name == one.reported]
    if alike:
        names = ", ".join(sorted(one.serial for one in alike))
        sentence = f"{name} does not tell one phone from another: give the name of one, {names}"
        return Refuse(Permanent(ErrorCode.DEVICE_NOT_FOUND, sentence))
    if failure is not None or not candidates:
        return Refuse(_nothing_known(failure))
    names = ", ".join(sorted(one.serial for one in candidates))
    return Refuse(Permanent(ErrorCode.DEVICE_NOT_FOUND, f"no phone is called {name}; known: {names}"))


def _why(phones: Sequence[Candidate], failure: AdbFailure | None) -> CommandError:
    """Why none of these can take it; the one that a person can mend comes first, what never will be ready last."""
    first = min(phones, key=lambda one: (one.state == UNSUPPORTED, not needs_permission(one.state)))
    if first.state == UNSUPPORTED:
        return unsupported(first.serial)
    if first.state == READY:
        sentence = f"{first.serial} is connected, and is being made ready"
        return Deferred(ErrorCode.DEVICE_BUSY, sentence, retry_after_seconds=LOOK_AGAIN_SECONDS)
    if failure is not None and not needs_permission(first.state):
        return _away(failure)
    return not_ready(first.serial, first.state, advice=first.hint, again_seconds=_AGAIN_SECONDS)


def _away(failure: AdbFailure) -> Deferred:
    return Deferred(failure.code, failure.message, retry_after_seconds=_AGAIN_SECONDS)


def _nothing_known(failure: AdbFailure | None) -> CommandError:
    if failure is not None:
        return _away(failure)
    return not_configured()


def busy() -> Deferred:
    """It has waited here long enough, and does so in the broker from now on."""
    sentence = "every phone that could take it is busy"
    return Deferred(ErrorCode.DEVICE_BUSY, sentence, retry_after_seconds=_AGAIN_SECONDS)
