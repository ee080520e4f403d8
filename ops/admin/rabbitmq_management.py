"""RabbitMQ's management API, as far as operators' commands need it; no exception of httpx leaves this file."""

import asyncio
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx

from contracts.plain_text import plain
from contracts.service_errors import ServiceTrouble, sentence
from contracts.service_urls import DEFAULT_VHOST, for_http

_TIMEOUT_SECONDS = 20.0
_NOT_FOUND = 404
_REFUSED = (401, 403)


class ManagementError(ServiceTrouble):
    """The API cannot be reached or said no; the sentence says which and where, without the password."""


class Management:
    """One user's view of the API.

    Args:
        url: http://user:password@host:port of RabbitMQ's management plugin; `https://…?cafile=…` names an authority.
        vhost: Whose queues, exchanges and permissions are meant.
        timeout_seconds: For one request as a whole: a server that answers drop by drop is as good as silent.
    """

    def __init__(self, url: str, *, vhost: str = DEFAULT_VHOST, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        parts = urlsplit(url)
        if not parts.hostname or not parts.username:
            raise ManagementError(
                "RabbitMQ's management address must be http://user:password@host:port: set ISH_RABBITMQ_MANAGEMENT_URL"
            )
        self.vhost = vhost
        self._url = url
        self.user = unquote(parts.username)
        host = parts.netloc.rpartition("@")[2]
        self._place = plain(f"{host} as {self.user}")
        try:
            bare, verify = for_http(url)
        except OSError as error:
            raise ManagementError(self._told(error)) from error
        path = urlsplit(bare).path.rstrip("/")
        self._client = httpx.AsyncClient(
            base_url=urlunsplit((parts.scheme, host, f"{path}/api/", "", "")),
            auth=httpx.BasicAuth(self.user, unquote(parts.password or "")),
            timeout=timeout_seconds,
            trust_env=False,
            verify=verify,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self._client.aclose()

    async def get(self, *path: str) -> Any:
        """Read one resource.

        Args:
            path: Its segments, unquoted.

        Returns:
            The decoded JSON; None when there is no such thing.

        Raises:
            ManagementError: See there.
        """
        return await self._request("GET", path)

    async def put(self, *path: str, body: dict[str, Any]) -> None:
        """Create or replace one resource.

        Args:
            path: Its segments, unquoted.
            body: JSON-ready.

        Raises:
            ManagementError: See there.
        """
        if await self._request("PUT", path, body) is None:
            raise ManagementError(
                f"RabbitMQ at {self._place}: {'/'.join(path)} cannot be made: its parent is not there"
            )

    async def delete(self, *path: str) -> bool:
        """Delete one resource.

        Args:
            path: Its segments, unquoted.

        Returns:
            False when there was no such thing.

        Raises:
            ManagementError: See there.
        """
        return await self._request("DELETE", path) is not None

    async def _request(self, method: str, path: tuple[str, ...], body: dict[str, Any] | None = None) -> Any:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._client.request(
                    method, "/".join(quote(part, safe="") for part in path), json=body
                )
        except (httpx.HTTPError, TimeoutError) as error:
            raise ManagementError(self._told(error)) from error
        if response.status_code == _NOT_FOUND:
            return None
        if response.status_code in _REFUSED:
            raise ManagementError(
                f"RabbitMQ's management API at {self._place} refuses: an administrator is needed ({_reason(response)}); "
                "correct the user and the password in ISH_RABBITMQ_MANAGEMENT_URL"
            )
        if response.is_error:
            raise ManagementError(
                f"RabbitMQ's management API at {self._place} answers {response.status_code} to {method} "
                f"{'/'.join(path)}: {plain(response.text)[:200]}"
            )
        try:
            return response.json() if method == "GET" else True
        except ValueError as error:
            raise ManagementError(
                f"what answers at {self._place} is not RabbitMQ's management API: it sent something other than JSON; "
                "correct ISH_RABBITMQ_MANAGEMENT_URL"
            ) from error

    def _told(self, error: BaseException) -> str:
        return sentence("RabbitMQ's management API", self._url, error, setting="ISH_RABBITMQ_MANAGEMENT_URL")


def _reason(response: httpx.Response) -> str:
    try:
        return plain(response.json()["reason"])[:200]
    except (ValueError, KeyError, TypeError):
        return f"it answers {response.status_code}"
