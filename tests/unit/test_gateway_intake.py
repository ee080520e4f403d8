import re
from contextlib import nullcontext, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.problems import Problem, ProblemType
from gateway.http.request import Asked, Disconnected, read_asked, read_body, wait_seconds


def test_request_that_asks_for_nothing_special() -> None:
    assert read_asked({}, b"") == Asked(
        wait_seconds=0, idempotency_key=None, deadline_seconds=None, priority=None, traceparent=None
    )


@pytest.mark.parametrize(
    ("headers", "query", "seconds"),
    [
        ({}, b"wait=10", 10),
        ({}, b"a=b&wait=60", 60),
        ({b"prefer": b"wait=5"}, b"", 5),
        ({b"prefer": b"respond-async, WAIT = 7; foo"}, b"", 7),
        ({b"prefer": b'handling=lenient;wait="8"'}, b"", 8),
        ({b"prefer": b"await=9"}, b"", 0),
        ({b"prefer": b"wait=5"}, b"wait=6", 6),
        ({}, b"waits=1", 0),
    ],
)
def test_wait_is_read_from_the_query_or_prefer(headers: dict[bytes, bytes], query: bytes, seconds: int) -> None:
    assert wait_seconds(headers, query) == seconds


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_no_wait_is_ever_outside_its_limits(prefer: bytes, query: bytes) -> None:
    with suppress(Problem):
        assert 0 <= wait_seconds({b"prefer": b"wait=" + prefer}, b"wait=" + query) <= 60


@given(st.binary(max_size=300))
def test_no_idempotency_key_but_visible_ascii_is_taken(key: bytes) -> None:
    good = re.fullmatch(rb"[!-~]{1,255}", key) is not None
    with nullcontext() if good else pytest.raises(Problem, match="Idempotency-Key"):
        assert read_asked({b"idempotency-key": key}, b"").idempotency_key == key.decode("ascii")


def test_traceparent_that_is_none_is_left_out() -> None:
    good = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"

    assert read_asked({b"traceparent": good}, b"").traceparent == good.decode()
    assert read_asked({b"traceparent": good + b"\n"}, b"").traceparent is None
    assert read_asked({b"traceparent": b"x" * 5000}, b"").traceparent is None


@pytest.mark.parametrize("media_type", [b"application/json", b"Application/JSON; charset=utf-8"])
def test_json_by_any_spelling_is_json(media_type: bytes) -> None:
    read_asked({b"content-type": media_type}, b"")


async def test_body_in_pieces_is_read_to_the_limit_and_no_further() -> None:
    pieces = [b"a" * 40, b"b" * 40, b"c" * 40]
    asked_for = 0

    async def receive() -> dict[str, object]:
        nonlocal asked_for
        asked_for += 1
        return {"type": "http.request", "body": pieces[asked_for - 1], "more_body": asked_for < 3}

    assert await read_body(receive, {}, limit_bytes=120) == b"".join(pieces)
    asked_for = 0
    with pytest.raises(Problem) as caught:
        await read_body(receive, {}, limit_bytes=79)
    assert caught.value.type is ProblemType.BODY_TOO_LARGE
    assert asked_for == 2


async def test_body_that_says_it_is_too_large_is_not_read() -> None:
    async def receive() -> dict[str, object]:
        raise AssertionError("nothing is to be read")

    with pytest.raises(Problem):
        await read_body(receive, {b"content-length": b"121"}, limit_bytes=120)


async def test_client_that_goes_away_in_its_body_gets_no_answer() -> None:
    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    with pytest.raises(Disconnected):
        await read_body(receive, {}, limit_bytes=10)
