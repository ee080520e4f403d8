import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.ai.providers.sse import Event, EventParser, EventTooLong

STREAM = (
    b"\xef\xbb\xbf: a comment\r\n"
    b'event: first\r\nid: 7\r\nretry: 10\r\ndata: {"a":\r\ndata:1}\r\n\r\n'
    b"data: second\n\n"
    b"\n\n"
    b"event: nothing\n\n"
    b"data\n\n"
    b"data: caf\xc3\xa9\r\rdata: [DONE]\n\n"
)
EVENTS = [
    Event(b'{"a":\n1}', "first"),
    Event(b"second"),
    Event(b""),
    Event("café".encode()),
    Event(b"[DONE]"),
]


def parsed(*chunks: bytes, max_bytes: int = 1000) -> list[Event]:
    parser = EventParser(max_bytes)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def test_comments_and_other_fields_are_passed_over_and_data_lines_joined() -> None:
    assert parsed(STREAM) == EVENTS


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_cut_anywhere_changes_nothing(cut: int) -> None:
    assert parsed(STREAM[:cut], STREAM[cut:]) == EVENTS


def test_bytes_may_come_one_by_one() -> None:
    assert parsed(*(STREAM[index : index + 1] for index in range(len(STREAM)))) == EVENTS


@given(st.lists(st.binary(max_size=20), max_size=30))
def test_how_the_bytes_are_cut_never_matters(chunks: list[bytes]) -> None:
    assert parsed(*chunks) == parsed(b"".join(chunks))


def test_the_last_event_may_lack_its_blank_line() -> None:
    parser = EventParser(1000)

    assert list(parser.feed(b"data: one\n\ndata: two\r")) == [Event(b"one")]
    assert parser.rest() == Event(b"two")
    assert parser.rest() is None


def test_nothing_is_left_of_a_stream_that_ended_well() -> None:
    parser = EventParser(1000)

    assert list(parser.feed(b"data: one\n\n: bye\n")) == [Event(b"one")]
    assert parser.rest() is None


@pytest.mark.parametrize("endless", [b"data: " + b"x" * 100, b"data: x\n" * 120, b": " + b"x" * 100])
def test_an_event_without_an_end_is_given_up(endless: bytes) -> None:
    with pytest.raises(EventTooLong):
        parsed(endless, max_bytes=99)


def test_many_events_may_be_longer_than_one() -> None:
    assert len(parsed(b"data: 123456789\n\n" * 1000, max_bytes=99)) == 1000
