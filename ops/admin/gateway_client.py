"""Calls the gateway as an operator's command does: address and key from the settings or the local stack, errors in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from contracts.service_errors import place_of, sentence
from contracts.service_urls import for_http
from contracts.settings import read_settings, stop
from ops.admin import operators
from ops.stack import environment_file
from ops.stack.errors import StackError
from ops.stack.layout import Layout

_TIMEOUT_SECONDS = 30.0


@contextmanager
def gateway(timeout: httpx.Timeout | float = _TIMEOUT_SECONDS) -> Iterator[httpx.Client]:
    """A client of the gateway, with the key; ends the process with one line when it does not answer.

    Args:
        timeout: Of one request.
    """
    url, key = _address()
    if not (key.isascii() and key.isprintable()):
        stop("ISH_API_KEY: is no key: it begins with ish_ and holds letters, digits, _ and -")
    try:
        bare, verify = for_http(url)
        headers = {"X-API-Key": key}
        with httpx.Client(
            base_url=bare.rstrip("/"), headers=headers, timeout=timeout, trust_env=False, verify=verify
        ) as client:
            yield client
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        stop("ISH_GATEWAY_URL: is not the address of a gateway, such as http://host:port")
    except (httpx.TransportError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise  # of the file that is sent or written
        stop(sentence("the gateway", url, error, setting="ISH_GATEWAY_URL"), code=1)


def call(method: str, path: str, **parameters: str | int | None) -> dict[str, Any]:
    """Ask the gateway; ends the process with one line when it cannot answer.

    Args:
        method: HTTP's.
        path: Such as `/api/commands`.
        parameters: Of the query; None leaves one out.
    """
    query = {name: value for name, value in parameters.items() if value is not None}
    with gateway() as client:
        answer = client.request(method, path, params=query)
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        stop(
            f"what answers at {place_of(str(answer.url))} is no gateway: it sent something other than its JSON; correct "
            "ISH_GATEWAY_URL",
            code=1,
        )
    if not answer.is_success:
        stop(_refusal(answer), code=1)
    return document


def save(path: str, file: Path) -> None:
    """Write what the gateway has at a path to a new file; ends the process with one line when that cannot be done.

    Args:
        path: Such as that of an artifact.
        file: Must not exist.
    """
    try:
        with gateway() as client, client.stream("GET", path) as answer:
            if not answer.is_success:
                answer.read()
                stop(_refusal(answer), code=1)
            with file.open("xb") as target:
                for piece in answer.iter_bytes():
                    target.write(piece)
    except OSError as error:
        stop(f"{file}: {error.strerror}", code=1)


def _refusal(answer: httpx.Response) -> str:
    said = f"the gateway at {place_of(str(answer.url))}: {detail_of(answer)}"
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return f"{said}; correct ISH_API_KEY (`ish keys create` makes one)"
    return said


def detail_of(answer: httpx.Response) -> str:
    """Why the gateway refused.

    Args:
        answer: Not a success.
    """
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {answer.status_code}"


def _address() -> tuple[str, str]:
    settings = read_settings()
    layout = Layout.of(settings)
    try:
        url = operators.local_value(layout, "gateway", "ISH_GATEWAY_URL", given=settings.gateway_url)
        key = settings.api_key or environment_file.read_value(layout, "ISH_API_KEY")
    except StackError as error:
        stop(f"{error}, or set ISH_GATEWAY_URL and ISH_API_KEY")
    return url, key
