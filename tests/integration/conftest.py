"""Fixtures of the tests that work on real services inside one process."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest

from contracts.commands import KINDS, decode_payload, fingerprint
from contracts.envelope import Envelope
from workers.deliveries import Admitted, Delivery


@pytest.fixture(scope="session")
def make_admitted() -> Callable[..., Admitted]:
    """Makes an admitted `ai.send` command under a new id."""

    def make(
        *,
        publisher: str = "demo",
        id_: UUID | None = None,
        body: bytes = b'{"prompt":"hello"}',
        repeatable: bool = True,
    ) -> Admitted:
        now = datetime.now(UTC)
        kind = KINDS["ai.send"]
        reply_to = f"reply.{publisher}"
        envelope = Envelope(publisher, id_ or uuid4(), kind, "demo", now, now + timedelta(hours=1), reply_to=reply_to)
        delivery = Delivery(1, 1, "ai.send", SimpleNamespace(headers={}), body, 0.0)
        payload = decode_payload(kind, body)
        return Admitted(delivery, envelope, payload, body.decode(), fingerprint(kind.name, body), repeatable)

    return make
