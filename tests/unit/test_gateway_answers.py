from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.cursors import decode_cursor, encode_cursor
from gateway.http.problems import Problem, ProblemType, render
from gateway.services.idempotency import identity
from gateway.services.views import encode, stored, summary

NOW = datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)), st.uuids(), st.integers(-1, 32767))
def test_cursor_brings_back_its_place(at: datetime, id_: UUID, position: int) -> None:
    assert decode_cursor(encode_cursor(at, id_, position)) == (at, id_, position)


@given(st.text(max_size=64))
def test_what_is_no_cursor_is_a_problem_whatever_it_is(text: str) -> None:
    with pytest.raises(Problem, match="cursor"):
        decode_cursor(f"!{text}")


def test_every_unavailable_says_when_to_come_back() -> None:
    for one in ProblemType:
        assert ("Retry-After" in Problem(one, "…").headers) is (one.value.status == 503)


def test_problem_is_a_problem_document() -> None:
    problem = Problem(ProblemType.KEY_REUSED, "why", errors=[{"field": "f", "rule": "r"}], members={"id": "x"})

    answer = render(problem, "request-1")

    assert answer.media_type == "application/problem+json"
    assert orjson.loads(bytes(answer.body)) == {
        "type": "urn:ish:problem:idempotency-key-reused",
        "title": "This Idempotency-Key came with another body before",
        "status": 422,
        "detail": "why",
        "instance": "urn:ish:request:request-1",
        "errors": [{"field": "f", "rule": "r"}],
        "id": "x",
    }


def test_stored_result_is_put_into_a_view_byte_for_byte() -> None:
    command_id = uuid4()
    result = b'{"b": 1,   "a":"\\u00fc"}'

    view = encode(
        summary(
            command_id,
            "relay",
            "succeeded",
            accepted_at=NOW,
            deadline_at=NOW + timedelta(hours=1),
            result=stored(result),
        )
    )

    assert result in view
    assert orjson.loads(view)["accepted_at"] == "2026-01-02T03:04:05.006000Z"


def test_idempotency_key_is_the_same_command_for_ever() -> None:
    # a change of this id would run again what clients send again across an upgrade
    assert identity("demo", "order-17") == UUID("dfd7ab60-b2c0-5f99-ab69-3d24b65f15dd")


@pytest.mark.parametrize(("owner", "key"), [("demo", "order-18"), ("dem", "oorder-17"), ("demo2", "order-17")])
def test_another_owner_or_key_is_another_command(owner: str, key: str) -> None:
    assert identity(owner, key) != identity("demo", "order-17")
