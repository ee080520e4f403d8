"""Our publish frames, read back by pamqp: the library that everybody else on the wire uses."""

from datetime import UTC, datetime
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands as spec

from contracts.amqp.frames import Properties, encode_publish

names = st.text(max_size=60).filter(lambda text: len(text.encode()) <= 255)
values = st.one_of(st.text(max_size=300), st.booleans(), st.integers(min_value=-(2**63), max_value=2**63 - 1))


def decode(data: bytes) -> list[tuple[int, Any]]:
    frames: list[tuple[int, Any]] = []
    while data:
        size, channel, frame = pamqp.frame.unmarshal(data)
        frames.append((channel, frame))
        data = data[size:]
    return frames


@given(
    exchange=names,
    routing_key=names,
    optional=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("user_id", "app_id", "correlation_id", "reply_to"), names)
    ),
    headers=st.dictionaries(names.filter(bool), values, max_size=8),
    body=st.binary(max_size=9000),
    mandatory=st.booleans(),
)
def test_what_is_encoded_is_what_others_decode(
    *,
    exchange: str,
    routing_key: str,
    optional: dict[str, str],
    headers: dict[str, str | int],
    body: bytes,
    mandatory: bool,
) -> None:
    properties = Properties(message_id="m", type="t", timestamp=1_700_000_000, headers=headers, **optional)

    data = encode_publish(7, exchange, routing_key, properties, body, mandatory=mandatory, frame_max=4096)

    (channel, publish), (_, header), *bodies = decode(data)
    assert channel == 7
    assert isinstance(publish, spec.Basic.Publish)
    assert (publish.exchange, publish.routing_key, publish.mandatory) == (exchange, routing_key, mandatory)
    read = header.properties
    assert (read.message_id, read.message_type, read.content_type, read.delivery_mode) == (
        "m",
        "t",
        "application/json",
        2,
    )
    assert read.timestamp == datetime.fromtimestamp(1_700_000_000, UTC)
    assert (read.headers or {}) == headers
    assert {name: getattr(read, name) for name in optional} == optional
    assert header.body_size == len(body)
    assert b"".join(frame.value for _, frame in bodies) == body


@pytest.mark.parametrize(("size", "pieces"), [(0, 0), (1, 1), (4088, 1), (4089, 2), (8176, 2), (8177, 3)])
def test_a_body_is_split_at_what_the_connection_negotiated(size: int, pieces: int) -> None:
    data = encode_publish(1, "e", "k", Properties("m", "t"), b"x" * size, mandatory=True, frame_max=4096)

    assert len(decode(data)) == 2 + pieces


def test_a_name_too_long_for_the_wire_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        encode_publish(1, "e", "k" * 256, Properties("m", "t"), b"", mandatory=True, frame_max=4096)
