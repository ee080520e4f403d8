"""Signs and sends one webhook (Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`).

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from standardwebhooks import Webhook
from typing_extensions import override

from workers.outbox.webhooks.addresses import ForbiddenTarget, Rules, check_url, is_public, literal_address
from workers.outbox.webhooks.resolver import CheckedResolver

TIMEOUT_SECONDS = 10.0
_ANSWER_MAX_BYTES = 16 * 1024
_CONNECTIONS = 100
_GONE = 410
_RETRY_AFTER_MAX_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one try."""

    delivered: bool
    problem: str | None = None
    """One sentence without anything that the other side wrote."""
    final: bool = False
    """No further try is wanted: the target says that it is gone for good."""
    retry_after_seconds: float | None = None


class Webhooks:
    """An HTTP client that follows no redirect, asks no proxy, keeps no cookie and reads little of an answer.

    Args:
        rules: Where webhooks may go.
        ssl_context: For certificates; None trusts what the machine trusts.
    """

    def __init__(self, rules: Rules, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._rules = rules
        self._session = aiohttp.ClientSession(
            request_class=_request_class(rules),
            connector=aiohttp.TCPConnector(
                resolver=CheckedResolver(rules),
                use_dns_cache=False,  # a cached answer would outlive its check
                limit=_CONNECTIONS,
                ssl=ssl_context or True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": "ish-chat-webhooks/1"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self._session.close()

    async def send(self, url: str, secret: str, *, webhook_id: str, body: bytes) -> Answer:
        """Send one webhook.

        Args:
            url: The target's.
            secret: The target's, `whsec_…`.
            webhook_id: The same at every try, so that the receiver can drop what it has.
            body: JSON, UTF-8.

        Returns:
            What became of it; nothing but a cancellation is raised.
        """
        try:
            checked = check_url(url, self._rules)
            async with self._session.post(
                checked, data=body, headers=sign(secret, webhook_id=webhook_id, body=body), allow_redirects=False
            ) as response:
                await response.content.read(_ANSWER_MAX_BYTES)
                if not response.content.at_eof():
                    response.close()
                return _judge(response)
        except TimeoutError:
            return Answer(delivered=False, problem=f"no answer within {TIMEOUT_SECONDS:g} s")
        except ForbiddenTarget as error:
            return Answer(delivered=False, problem=str(error))
        except aiohttp.ClientSSLError:
            return Answer(delivered=False, problem="its TLS certificate or handshake is not valid")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(delivered=False, problem=f"cannot be reached ({type(error).__name__})")


def sign(secret: str, *, webhook_id: str, body: bytes, now: datetime | None = None) -> dict[str, str]:
    """The headers of one try.

    Args:
        secret: `whsec_` and base64.
        webhook_id: Of the webhook.
        body: What is sent, UTF-8.
        now: The time of this try, aware; None is now.

    Raises:
        ValueError: The secret is not base64.
    """
    moment = now or datetime.now(UTC)
    return {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, moment, body.decode()),
    }


def _request_class(rules: Rules) -> type[ClientRequest]:
    """A request that looks at whom it is connected to before it sends anything."""

    class CheckedRequest(ClientRequest):
        @override
        async def send(self, conn: Any) -> aiohttp.ClientResponse:
            peer = conn.transport.get_extra_info("peername") if conn.transport is not None else None
            address = literal_address(str(peer[0])) if peer else None
            if address is None or not (rules.allow_private or is_public(address)):
                raise ForbiddenTarget(f"{self.url.raw_host} was reached at an address that is not public")
            return await super().send(conn)

    return CheckedRequest


def _judge(response: aiohttp.ClientResponse) -> Answer:
    if response.ok and response.status < 300:  # noqa: PLR2004  # the HTTP class of success
        return Answer(delivered=True)
    if response.status == _GONE:
        return Answer(delivered=False, problem="410: the target is gone", final=True)
    return Answer(
        delivered=False,
        problem=f"answered {response.status}",
        retry_after_seconds=_retry_after(response.headers.get("Retry-After")),
    )


def _retry_after(value: str | None) -> float | None:
    if value is None or not (value.isascii() and value.isdigit()):
        return None
    return min(float(value), _RETRY_AFTER_MAX_SECONDS)
