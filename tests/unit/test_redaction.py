import json

import pytest

from contracts.android.command import AndroidExecute
from contracts.commands import KINDS, InvalidPayload, decode_payload, fingerprint, recorded_body
from contracts.redaction import redacted

SECRET = "hunter2"
TYPED = {"action": "text", "text": SECRET, "secret": True}


@pytest.mark.parametrize(
    "body",
    [
        TYPED,
        {"action": "batch", "actions": [{"action": "wake"}, TYPED]},
        {"action": "text", "text": SECRET, "secret": True, "no_such_field": 1},
        {"action": "text", "text": {"deeper": SECRET}, "secret": True},
    ],
)
def test_a_secret_is_taken_out_wherever_it_stands(body: object) -> None:
    written = redacted(json.dumps(body).encode())

    assert SECRET.encode() not in written
    assert redacted(written) == written


def test_a_name_that_is_written_with_escapes_is_found_too() -> None:
    body = f'{{"action":"text","text":"{SECRET}","\\u0073ecret":true}}'.encode()

    assert SECRET.encode() not in redacted(body)


@pytest.mark.parametrize(
    "body", [b'{"action":"text",  "text":"secret"}', b'{"action":"text","text":"a","secret":false}', b"secret: no JSON"]
)
def test_what_has_no_secret_stays_as_it_is(body: bytes) -> None:
    assert redacted(body) is body


def test_a_body_that_is_nested_deeply_is_looked_through() -> None:
    for depth in (100, 1000):
        written = redacted(b"[" * depth + json.dumps(TYPED).encode() + b"]" * depth)

        assert SECRET.encode() not in written
        assert redacted(written) == written


def test_a_fingerprint_says_nothing_of_a_secret() -> None:
    first, other = (json.dumps(TYPED | {"text": text}).encode() for text in (SECRET, "another"))

    assert fingerprint("android.execute", first) == fingerprint("android.execute", other)
    assert fingerprint("android.execute", first) == fingerprint(
        "android.execute", recorded_body("android.execute", first)
    )


def test_only_phones_have_secrets() -> None:
    body = b'{"text":"a","secret":true}'

    assert recorded_body("relay", body) is body


def test_a_body_without_its_secret_is_still_a_command_and_knows_it() -> None:
    payload = decode_payload(KINDS["android.execute"], redacted(json.dumps(TYPED).encode()))

    assert isinstance(payload, AndroidExecute)
    assert payload.secret_is_gone
    assert SECRET not in repr(decode_payload(KINDS["android.execute"], json.dumps(TYPED).encode()))


def test_only_a_secret_may_be_missing() -> None:
    with pytest.raises(InvalidPayload, match="must be a string"):
        decode_payload(KINDS["android.execute"], b'{"action":"text","text":null}')
