"""Calls the gateway as an operator's command does: address and key from the settings or the local stack, errors in one line."""

from typing import Any

import httpx

from contracts.settings import read_settings, stop
from ops.stack import environment_file
from ops.stack.errors import StackError
from ops.stack.layout import Layout

_TIMEOUT_SECONDS = 30.0


def call(method: str, path: str, **parameters: str | int | None) -> dict[str, Any]:
    """Ask the gateway; ends the process with one line when it cannot answer.

    Args:
        method: HTTP's.
        path: Such as `/api/commands`.
        parameters: Of the query; None leaves one out.
    """
    url, key = _address()
    query = {name: value for name, value in parameters.items() if value is not None}
    try:
        with httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=_TIMEOUT_SECONDS, trust_env=False) as one:
            answer = one.request(method, path, params=query)
        document: dict[str, Any] = answer.json()
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        stop(f"ISH_GATEWAY_URL: {url!r} is not the address of a gateway")
    except httpx.TransportError as error:
        stop(f"the gateway at {url} does not answer ({str(error) or type(error).__name__}): is it running?", code=1)
    except ValueError:
        stop(f"what answers at {url} is no gateway: it sent something other than JSON", code=1)
    if not answer.is_success:
        stop(str(document.get("detail") or f"the gateway answered {answer.status_code}"), code=1)
    return document


def _address() -> tuple[str, str]:
    settings = read_settings()
    layout = Layout.of(settings)
    try:
        url = settings.gateway_url or environment_file.read_value(layout, "ISH_GATEWAY_URL")
        key = settings.api_key or environment_file.read_value(layout, "ISH_API_KEY")
    except StackError as error:
        stop(f"{error}, or set ISH_GATEWAY_URL and ISH_API_KEY")
    return url.rstrip("/"), key
