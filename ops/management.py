"""RabbitMQ's management API, as far as operators' commands need it; no exception of httpx leaves this file."""

from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

VHOST = "/"
_TIMEOUT_SECONDS = 20.0
_NOT_FOUND = 404
_REFUSED = (401, 403)


class ManagementError(Exception):
    """The API cannot be reached or said no; the sentence says which and where, without the password."""


class Management:
    """One user's view of the API.

    Args:
        url: http://user:password@host:port of RabbitMQ's management plugin.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not parts.hostname or not parts.username:
            raise ManagementError("RabbitMQ's management address must be http://user:password@host:port")
        self.user = parts.username
        host = parts.netloc.rpartition("@")[2]
        self._place = f"{host} as {self.user}"
        self._client = httpx.AsyncClient(
            base_url=urlunsplit((parts.scheme, host, "/api/", "", "")),
            auth=httpx.BasicAuth(httpx.URL(url).username, httpx.URL(url).password),
            timeout=_TIMEOUT_SECONDS,
            trust_env=False,
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
            response = await self._client.request(method, "/".join(quote(part, safe="") for part in path), json=body)
        except httpx.HTTPError as error:
            raise ManagementError(f"RabbitMQ's management API at {self._place} cannot be reached: {error!r}") from error
        if response.status_code == _NOT_FOUND:
            return None
        if response.status_code in _REFUSED:
            raise ManagementError(f"RabbitMQ's management API at {self._place} refuses: an administrator is needed")
        if response.is_error:
            raise ManagementError(
                f"RabbitMQ's management API at {self._place} answers {response.status_code} to {method} "
                f"{'/'.join(path)}: {response.text[:200]}"
            )
        return response.json() if method == "GET" else True
