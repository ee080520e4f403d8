"""Server-sent events out of a byte stream that is cut anywhere: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """One event is longer than what is kept of it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event that holds data."""

    data: bytes
    name: str = ""
    """Of the `event` field; empty when there was none."""


class EventParser:
    """Puts events together from the bytes as they come; comments and other fields are passed over.

    Args:
        max_bytes: What one event may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pending = bytearray()
        self._scanned = 0
        self._started = False
        self._data: list[bytes] = []
        self._size = 0
        self._name = ""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes.

        Args:
            chunk: Any number of them.

        Yields:
            Each event that they complete.

        Raises:
            EventTooLong: There is no end of one in sight.
        """
        self._pending += chunk
        if not self._started:
            if len(self._pending) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(self._pending):
                return
            self._started = True
            if self._pending.startswith(_BYTE_ORDER_MARK):
                del self._pending[: len(_BYTE_ORDER_MARK)]
        yield from self._events()
        if len(self._pending) + self._size > self._max_bytes:
            raise EventTooLong

    def rest(self) -> Event | None:
        """The event that the end of the stream left without its blank line; the last one of sloppy servers."""
        if self._pending:
            self._take(bytes(self._pending.rstrip(b"\r\n")))
            self._pending.clear()
        return self._complete()

    def _events(self) -> Iterator[Event]:
        start, position = 0, self._scanned
        while (end := _LINE_END.search(self._pending, position)) is not None:
            if end.group() == b"\r" and end.end() == len(self._pending):
                break  # a line feed may follow
            line = bytes(self._pending[start : end.start()])
            start = position = end.end()
            if line:
                self._take(line)
            elif (event := self._complete()) is not None:
                yield event
        del self._pending[:start]
        self._scanned = max(len(self._pending) - 1, 0)

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")

    def _complete(self) -> Event | None:
        event = Event(b"\n".join(self._data), self._name) if self._data else None
        self._data, self._size, self._name = [], 0, ""
        return event
