"""Nothing is sent to this machine's own network, however its address is written or whatever a name resolves to."""

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from yarl import URL

from ops.admin.targets import new_secret
from tests.integration.webhook_receiver import Receiver, receiving
from workers.outbox.webhooks import resolver, sending
from workers.outbox.webhooks.addresses import Rules
from workers.outbox.webhooks.sending import Answer, Webhooks

STRICT = Rules(allow_http=True)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as it:
        yield it


async def send(url: str) -> Answer:
    async with Webhooks(STRICT) as it:
        return await it.send(url, new_secret(), webhook_id="a", body=b"{}")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "１２７.0.0.1",  # noqa: RUF001  # full-width digits
        "127。0。0。1",
        "①②⑦.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "localhost",
        "localhost.",
        "ⓛocalhost",
        "x.localhost",
        "example.org@127.0.0.1",
    ],
)
async def test_no_way_to_write_this_machines_address_reaches_it(receiver: Receiver, host: str) -> None:
    answer = await send(f"http://{host}:{URL(receiver.url).port}/hook")

    assert not answer.delivered
    assert answer.problem is not None
    assert not answer.problem.startswith("cannot be reached")
    assert receiver.received == []


async def test_a_name_that_resolves_to_this_machine_is_not_dialled(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def lies(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == "hook.example.org" else host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lies)

    answer = await send(f"http://hook.example.org:{URL(receiver.url).port}/hook")

    assert answer == Answer(delivered=False, problem="hook.example.org has no public address")
    assert receiver.received == []


async def test_whoever_is_connected_to_is_checked_again_before_anything_is_sent(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if every check before the connection had been passed by."""
    monkeypatch.setattr(resolver, "is_public", lambda _: True)
    port = URL(receiver.url).port
    by_name = f"http://hook.localhost:{port}/hook"
    monkeypatch.setattr(sending, "check_url", lambda url, _: URL(url))

    answers = [await send(by_name), await send(receiver.url)]

    assert [one.delivered for one in answers] == [False, False]
    assert all("an address that is not public" in (one.problem or "") for one in answers)
    assert receiver.received == []
