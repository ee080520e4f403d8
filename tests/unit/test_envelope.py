"""What is believed of a message's properties, and what is refused with which reason."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pamqp import commands as spec

from contracts.envelope import Envelope, Refused, milliseconds, read_envelope, write_envelope

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ID = "6f1a3f0e-6a0b-4a53-8a43-0c7f3c1d9a10"


def properties(**changes: Any) -> spec.Basic.Properties:
    fields: dict[str, Any] = {"message_id": ID, "message_type": "relay.v1", "user_id": "demo", **changes}
    return spec.Basic.Properties(**{name: value for name, value in fields.items() if value is not None})


def read(**changes: Any) -> Envelope:
    return read_envelope(properties(**changes), default_deadline=timedelta(hours=1), now=NOW)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"user_id": None}, "no_user_id"),
        ({"message_id": None}, "no_message_id"),
        ({"message_id": "42"}, "bad_message_id"),
        ({"message_type": None}, "unknown_type"),
        ({"message_type": "dance.v1"}, "unknown_type"),
        ({"message_type": "relay"}, "unknown_type"),
        ({"message_type": "relay.v2"}, "unknown_version"),
        ({"reply_to": "reply.other"}, "foreign_reply_to"),
        ({"reply_to": "reply.demonic"}, "foreign_reply_to"),
        ({"reply_to": "ish.relay"}, "foreign_reply_to"),
        ({"headers": {"x-deadline-ms": "soon"}}, "invalid_header"),
        ({"headers": {"x-deadline-ms": -1}}, "invalid_header"),
        ({"headers": {"x-deadline-ms": True}}, "invalid_header"),
        ({"headers": {"x-deadline-ms": 2**62}}, "invalid_header"),
        ({"headers": {"x-deadline-ms": milliseconds(NOW + timedelta(days=8))}}, "invalid_header"),
        ({"headers": {"x-priority": "urgent"}}, "invalid_header"),
    ],
)
def test_a_message_that_cannot_become_a_command_is_refused_with_its_reason(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        read(**changes)

    assert refused.value.code == code


def test_the_refusal_keeps_who_and_what_could_be_read() -> None:
    with pytest.raises(Refused) as refused:
        read(message_type="relay.v9")

    assert (refused.value.publisher, refused.value.message_id) == ("demo", ID)


def test_an_outside_publisher_cannot_speak_for_another() -> None:
    envelope = read(headers={"x-publisher": "gateway", "x-owner": "alice", "x-attempt": 7, "x-not-before-ms": 2**41})

    assert (envelope.publisher, envelope.owner, envelope.attempt, envelope.not_before) == ("demo", "demo", 1, None)


def test_our_own_roles_are_believed() -> None:
    envelope = read(
        user_id="worker",
        reply_to="reply.demo",
        headers={"x-publisher": "demo", "x-owner": "alice", "x-attempt": 3, "x-not-before-ms": milliseconds(NOW)},
    )

    assert (envelope.publisher, envelope.owner, envelope.attempt) == ("demo", "alice", 3)
    assert envelope.not_before == NOW


@pytest.mark.parametrize("name", ["reply.demo", "reply.demo.laptop"])
def test_a_publisher_may_name_its_own_reply_queues(name: str) -> None:
    assert read(reply_to=name).reply_to == name


def test_without_a_deadline_the_default_counts_from_acceptance() -> None:
    accepted = NOW - timedelta(minutes=10)

    envelope = read(headers={"x-created-ms": milliseconds(accepted)})

    assert envelope.accepted_at == accepted
    assert envelope.deadline_at == accepted + timedelta(hours=1)


def test_a_publisher_whose_clock_is_ahead_is_not_believed_about_the_past() -> None:
    assert read(headers={"x-created-ms": milliseconds(NOW + timedelta(minutes=5))}).accepted_at == NOW


def test_what_we_write_we_read_back() -> None:
    envelope = replace(
        read(reply_to="reply.demo", correlation_id="c-1"),
        owner="alice",
        attempt=2,
        not_before=NOW + timedelta(seconds=30),
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        priority="batch",
        replay_of=UUID(ID),
    )

    written = write_envelope(envelope, user="worker")

    again = read_envelope(
        spec.Basic.Properties(
            message_id=written.message_id,
            message_type=written.type,
            user_id=written.user_id,
            correlation_id=written.correlation_id,
            reply_to=written.reply_to,
            headers=dict(written.headers),
        ),
        default_deadline=timedelta(hours=1),
        now=NOW,
    )
    assert again == envelope
    assert not {"x-death", "x-delivery-count"} & set(written.headers)
