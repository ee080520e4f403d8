"""What each fault does on the wire, to an answer in one piece and to a stream."""

from collections.abc import Callable
from dataclasses import dataclass

from ops.simulators.provider.forms import Draft, Form, event
from ops.simulators.provider.scripts import Fault
from ops.simulators.provider.wire import EVENTS, JSON, LAST_CHUNK, Act, Ending, Pause, Plan, chunk, head, http

HUGE_BODY_BYTES = 64 * 1024 * 1024
TRICKLE_SECONDS = 1.0
PING_SECONDS = 0.05
_SENT = Pause(0.1)  # lets what was written arrive before the connection goes
_SENT_AND_READ = Pause(0.5)  # the same where the caller must have seen all of it
_PIECE = b"x" * 65536


@dataclass(frozen=True, slots=True)
class Setting:
    """The answer that a fault spoils."""

    form: Form
    draft: Draft
    stream: bool
    after_tokens: int | None

    @property
    def whole(self) -> bytes:
        """It, well, in one piece."""
        return self.form.whole(self.draft, text=self.draft.text, finish_reason="stop")

    @property
    def half(self) -> bytes:
        """The answer in one piece, with its head, cut in the middle."""
        return http(200, self.whole)[: -len(self.whole) // 2]

    @property
    def begun(self) -> bytes:
        """A stream up to where the fault strikes."""
        words = self.draft.words
        count = (len(words) + 1) // 2 if self.after_tokens is None else self.after_tokens
        said = b"".join(self.form.word(self.draft, word) for word in words[:count])
        return self.opened + chunk(said)

    @property
    def opened(self) -> bytes:
        """A stream before its first word."""
        return _STREAM + chunk(self.form.opening(self.draft))

    @property
    def complete(self) -> bytes:
        """A stream whose finish reason and usage are said."""
        said = b"".join(self.form.word(self.draft, word) for word in self.draft.words)
        return self.opened + chunk(said) + chunk(self.form.closing(self.draft, "stop"))

    @property
    def end(self) -> bytes:
        """How a stream ends well."""
        return chunk(self.form.done()) + LAST_CHUNK


def faulty(fault: Fault, setting: Setting) -> Plan:
    """The plan of a fault.

    Args:
        fault: Which.
        setting: What it spoils.
    """
    if fault in setting.form.refusals:
        status, error = setting.form.refusals[fault]
        return iter([http(status, setting.form.error({"message": "scripted", **error}))])
    if fault in _ALIKE:
        return iter(_ALIKE[fault])
    return (_STREAMED if setting.stream else _WHOLE)[fault](setting)


def _plan(*acts: Act) -> Plan:
    return iter(acts)


def _trickle(answer: bytes, *, from_byte: int) -> Plan:
    yield answer[:from_byte]
    for index in range(from_byte, len(answer)):
        yield answer[index : index + 1]
        yield Pause(TRICKLE_SECONDS)


def _huge(setting: Setting) -> Plan:
    opening, _, closing = setting.form.whole(setting.draft, text="HUGE", finish_reason="stop").partition(b"HUGE")
    yield head(200, length=len(opening) + HUGE_BODY_BYTES + len(closing), content_type=JSON) + opening
    for _ in range(HUGE_BODY_BYTES // len(_PIECE)):
        yield _PIECE
    yield closing


def _many_events(setting: Setting) -> Plan:
    yield setting.opened
    word = chunk(setting.form.word(setting.draft, _PIECE.decode()))
    for _ in range(HUGE_BODY_BYTES // len(_PIECE)):
        yield word
    yield chunk(setting.form.closing(setting.draft, "stop")) + setting.end


def _one_event(setting: Setting) -> Plan:
    yield setting.opened + chunk(b"data: ")
    for _ in range(HUGE_BODY_BYTES // len(_PIECE)):
        yield chunk(_PIECE)
    yield LAST_CHUNK


def _pings(setting: Setting) -> Plan:
    yield _STREAM if setting.stream else head(200, length=None)
    while True:
        yield chunk(setting.form.ping() if setting.stream else b"\n")  # white space before JSON means nothing
        yield Pause(PING_SECONDS)


def _error_in_200(setting: Setting) -> Plan:
    return _plan(http(200, setting.form.error(setting.form.failure)))


def _finished(setting: Setting, reason: str) -> bytes:
    return chunk(setting.form.closing(setting.draft, reason)) + setting.end


_STREAM = head(200, length=None, content_type=EVENTS)
_HALF_JSON = b'{"choices": [{"index": 0, "delta": {"content": "half'

_ALIKE: dict[Fault, list[Act]] = {
    Fault.STALL_BEFORE_HEADERS: [Ending.STALL],
    Fault.RESET_BEFORE_HEADERS: [Ending.RESET],
    Fault.RESET_MID_HEADERS: [head(200, length=1)[:30], _SENT, Ending.RESET],
    Fault.WRONG_CONTENT_TYPE: [http(200, b"<html><body>Welcome</body></html>", content_type="text/html")],
}
"""Faults that do not depend on what is asked."""

_WHOLE: dict[Fault, Callable[[Setting], Plan]] = {
    Fault.STALL_AFTER_HEADERS: lambda its: _plan(head(200, length=len(its.whole)), Ending.STALL),
    Fault.PINGS_ONLY: _pings,
    Fault.STALL_MID_BODY: lambda its: _plan(its.half, Ending.STALL),
    Fault.RESET_AFTER_HEADERS: lambda its: _plan(head(200, length=len(its.whole)), _SENT, Ending.RESET),
    Fault.RESET_MID_BODY: lambda its: _plan(its.half, _SENT, Ending.RESET),
    Fault.CLOSE_MID_BODY: lambda its: _plan(its.half, _SENT, Ending.CLOSE),
    Fault.TRICKLE: lambda its: _trickle(http(200, its.whole), from_byte=len(head(200, length=len(its.whole)))),
    Fault.HUGE_BODY: _huge,
    Fault.HUGE_EVENT: _huge,
    Fault.EMPTY_BODY: lambda _: _plan(http(200, b"")),
    Fault.MALFORMED_JSON: lambda its: _plan(http(200, its.whole[: len(its.whole) // 2])),
    Fault.ENDS_EARLY: lambda its: _plan(head(200, length=None) + chunk(its.whole[: len(its.whole) // 2]) + LAST_CHUNK),
    Fault.EMPTY_CHOICES: lambda its: _plan(http(200, its.form.without_choices(its.draft))),
    Fault.NULL_CONTENT: lambda its: _plan(http(200, its.form.whole(its.draft, text=None, finish_reason="stop"))),
    Fault.NO_FINISH_REASON: lambda its: _plan(
        http(200, its.form.whole(its.draft, text="half an ans", finish_reason=None))
    ),
    Fault.CONTENT_REFUSED: lambda its: _plan(
        http(200, its.form.whole(its.draft, text="", finish_reason=its.form.content_refused))
    ),
    Fault.ERROR_IN_200: _error_in_200,
    Fault.ERROR_MID_BODY: _error_in_200,
    Fault.NO_DONE: lambda its: _plan(http(200, its.whole)),
    # says that it closes, or the reset would hit the next call on the same connection
    Fault.RESET_BEFORE_DONE: lambda its: _plan(
        http(200, its.whole, headers={"connection": "close"}), _SENT, Ending.RESET
    ),
    Fault.STALL_BEFORE_DONE: lambda its: _plan(http(200, its.whole)),
}

_STREAMED: dict[Fault, Callable[[Setting], Plan]] = {
    Fault.STALL_AFTER_HEADERS: lambda _: _plan(_STREAM, Ending.STALL),
    Fault.PINGS_ONLY: _pings,
    Fault.STALL_MID_BODY: lambda its: _plan(its.begun, Ending.STALL),
    Fault.RESET_AFTER_HEADERS: lambda _: _plan(_STREAM, _SENT, Ending.RESET),
    Fault.RESET_MID_BODY: lambda its: _plan(its.begun, _SENT, Ending.RESET),
    Fault.CLOSE_MID_BODY: lambda its: _plan(its.begun, _SENT, Ending.CLOSE),
    Fault.TRICKLE: lambda its: _trickle(its.complete + its.end, from_byte=len(_STREAM)),
    Fault.HUGE_BODY: _many_events,
    Fault.HUGE_EVENT: _one_event,
    Fault.EMPTY_BODY: lambda _: _plan(_STREAM + LAST_CHUNK),
    # it goes on as if nothing had been: who passes over the event loses a part of the text
    Fault.MALFORMED_JSON: lambda its: _plan(its.begun + chunk(event(_HALF_JSON)) + _finished(its, "stop")),
    Fault.ENDS_EARLY: lambda its: _plan(its.begun + LAST_CHUNK),
    Fault.EMPTY_CHOICES: lambda its: _plan(_STREAM + chunk(event(its.form.without_choices(its.draft))) + its.end),
    Fault.NULL_CONTENT: lambda its: _plan(its.opened + _finished(its, "stop")),
    Fault.NO_FINISH_REASON: lambda its: _plan(its.begun + its.end),
    Fault.CONTENT_REFUSED: lambda its: _plan(its.begun + _finished(its, its.form.content_refused)),
    Fault.ERROR_IN_200: lambda its: _plan(_STREAM + chunk(its.form.error_event(its.form.failure)) + LAST_CHUNK),
    Fault.ERROR_MID_BODY: lambda its: _plan(its.begun + chunk(its.form.error_event(its.form.failure)) + LAST_CHUNK),
    Fault.NO_DONE: lambda its: _plan(its.complete + LAST_CHUNK),
    Fault.RESET_BEFORE_DONE: lambda its: _plan(its.complete, _SENT_AND_READ, Ending.RESET),
    Fault.STALL_BEFORE_DONE: lambda its: _plan(its.complete, Ending.STALL),
}
