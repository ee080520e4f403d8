"""Who is answered when a message cannot become a command, and what they are told."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import orjson
import pytest
from pamqp import commands as spec
from pamqp.header import ContentHeader

from contracts.amqp.messages import Refusal, refusal_message
from contracts.amqp.undecodable import readable
from contracts.envelope import Refused, read_envelope
from contracts.results import Result
from workers.consume.refusals import refusal_of

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ID = str(uuid4())


def refused(routing_key: str = "relay", **changes: Any) -> Refusal | None:
    usual: dict[str, Any] = {
        "message_id": ID,
        "message_type": "relay.v1",
        "user_id": "demo",
        "reply_to": "reply.demo",
        "correlation_id": "c-1",
    }
    given = {name: value for name, value in {**usual, **changes}.items() if value is not None}
    properties = spec.Basic.Properties(**given)
    with pytest.raises(Refused) as raised:
        read_envelope(properties, default_deadline=timedelta(hours=1), now=NOW)
    return refusal_of(properties, raised.value, routing_key=routing_key)


@pytest.mark.parametrize(
    ("changes", "code", "type_"),
    [
        ({"message_type": "relay.v2"}, "unknown_version", "relay.result.v1"),
        ({"message_type": "relay"}, "unknown_type", "relay.result.v1"),
        ({"message_type": None}, "unknown_type", "relay.result.v1"),
        ({"message_type": None, "routing_key": "ai.send.batch"}, "unknown_type", "ai.send.result.v1"),
        ({"message_type": None, "routing_key": "android.execute.R58M"}, "unknown_type", "android.execute.result.v1"),
        ({"message_type": "tea.v1", "routing_key": "tea"}, "unknown_type", "result.v1"),
        ({"message_id": None}, "no_message_id", "relay.result.v1"),
        ({"message_id": "42"}, "bad_message_id", "relay.result.v1"),
        ({"headers": {"x-priority": "asap"}}, "invalid_header", "relay.result.v1"),
        ({"headers": {"x-undecodable": "ValueError"}}, "invalid_header", "relay.result.v1"),
    ],
)
def test_refused_message_is_answered_with_its_reason(changes: dict[str, Any], code: str, type_: str) -> None:
    refusal = refused(**changes)

    assert refusal is not None
    message = refusal_message(refusal, user="worker")
    assert (message.exchange, message.routing_key, message.mandatory) == ("ish.replies", "reply.demo", True)
    assert message.properties.type == type_
    assert message.properties.message_id == (changes.get("message_id", ID) or "")
    assert message.properties.correlation_id == "c-1"
    result = Result.model_validate_json(message.body)
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code == code
    assert (None if result.command_id is None else str(result.command_id)) == (
        ID if "message_id" not in changes else None
    )
    assert orjson.loads(message.body)["finished_at"].endswith("Z")


@pytest.mark.parametrize("reply_to", ["reply.other", "ish.relay", "reply.demonic", "reply.demo.\0"])
def test_who_names_anothers_queue_is_told_in_their_own(reply_to: str) -> None:
    refusal = refused(reply_to=reply_to)

    assert refusal is not None
    assert refusal.reply_to == "reply.demo"


def test_who_asks_for_no_answer_or_does_not_say_who_they_are_gets_none() -> None:
    assert refused(message_type="relay.v2", reply_to=None) is None
    assert refused(user_id=None) is None


def test_strings_beside_those_that_cannot_be_decoded_are_read() -> None:
    properties = spec.Basic.Properties(
        content_type="application/json",
        headers={"a": "MARK"},
        delivery_mode=2,
        priority=3,
        correlation_id="MARK",
        reply_to="reply.demo",
        message_id=ID,
        timestamp=NOW,
        message_type="relay.v1",
        user_id="demo",
    )
    data = ContentHeader(0, 5, properties).marshal().replace(b"MARK", b"\xff\xfe\xfd\xfc")

    assert readable(data) == {
        "content_type": "application/json",
        "reply_to": "reply.demo",
        "message_id": ID,
        "message_type": "relay.v1",
        "user_id": "demo",
    }


def test_header_that_is_cut_off_is_read_as_far_as_it_goes() -> None:
    data = ContentHeader(0, 5, spec.Basic.Properties(message_id=ID, user_id="demo")).marshal()

    for length in range(len(data)):
        assert set(readable(data[:length])) <= {"message_id", "user_id"}
