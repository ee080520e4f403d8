"""Signatures and waits of webhooks."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from ops.admin.targets import new_secret
from workers.outbox.webhooks.delivery import backoff_seconds
from workers.outbox.webhooks.sending import sign


def test_a_signature_is_verified_by_the_standards_own_library() -> None:
    secret = new_secret()

    headers = sign(secret, webhook_id="a:1:0:t", body='{"text":"ü"}'.encode())

    assert Webhook(secret).verify('{"text":"ü"}', headers) == {"text": "ü"}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify('{"text":"u"}', headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify('{"text":"ü"}', headers)


def test_a_signature_is_made_of_the_time_of_the_try_whatever_its_zone() -> None:
    secret, at = new_secret(), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    headers = sign(secret, webhook_id="i", body=b"{}", now=at)
    # the library signs the wall clock's digits as if they were UTC: an aware time in UTC is what it must be given
    assert headers["webhook-timestamp"] == str(int(at.timestamp()))
    assert headers["webhook-signature"] == Webhook(secret).sign("i", at, "{}")


def test_secrets_are_256_random_bits_with_the_standards_prefix() -> None:
    one, other = new_secret(), new_secret()

    assert one.startswith("whsec_")
    assert len(base64.b64decode(one.removeprefix("whsec_"))) == 32
    assert one != other


def test_waits_grow_to_an_hour_and_stay_there() -> None:
    waits = [backoff_seconds(tries, jitter=0) for tries in range(1, 9)]

    assert waits == [5, 30, 120, 600, 3600, 3600, 3600, 3600]
    assert backoff_seconds(3, jitter=1) == pytest.approx(144)
    assert timedelta(seconds=backoff_seconds(10**6)) < timedelta(hours=1.3)
