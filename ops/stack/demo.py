"""One command of each kind through the running stack, as anybody would send it, and what came of it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

_WAIT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Line:
    """What one command brought."""

    command: str
    status: str
    said: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Example:
    command: str
    path: str
    body: Mapping[str, Any]
    said: Callable[[Mapping[str, Any]], str]


def run(url: str, key: str) -> list[Line]:
    """Send the commands one after the other, each with `wait`.

    Args:
        url: The gateway.
        key: An API key.
    """
    with httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=_WAIT_SECONDS + 5, trust_env=False) as client:
        return [_send(client, example) for example in _examples()]


def _examples() -> tuple[_Example, ...]:
    return (
        _Example(
            "relay a message",
            "/api/relay",
            {
                "sender": "user",
                "message": "Hello from the first start",
                "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
                "conversation_id": "demo",
            },
            lambda output: ", ".join(
                f"{name} {value}" for name, value in output.items() if value not in (None, [], {})
            ),
        ),
        _Example(
            "ask the model",
            "/api/send",
            {"prompt": "Say hello to a new user in one short sentence.", "max_tokens": 60},
            lambda output: f"{output.get('text', '')!r} ({output.get('model', '')})",
        ),
        _Example(
            "screenshot",
            "/api/android/execute",
            {"action": "screenshot"},
            lambda output: _picture(output.get("artifact") or {}),
        ),
        _Example(
            "device status",
            "/api/android/execute",
            {"action": "status"},
            lambda output: ", ".join(f"{name} {_flat(value)}" for name, value in output.items() if value is not None),
        ),
    )


def _send(client: httpx.Client, example: _Example) -> Line:
    started = time.monotonic()
    try:
        answer = client.post(example.path, params={"wait": _WAIT_SECONDS}, json=example.body)
        body: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        return Line(example.command, "no answer", repr(error), time.monotonic() - started)
    seconds = time.monotonic() - started
    if answer.status_code != httpx.codes.OK:
        return Line(
            example.command, f"HTTP {answer.status_code}", str(body.get("detail", body.get("status", ""))), seconds
        )
    result = body.get("result") or body
    failure = result.get("error")
    said = f"{failure['code']}: {failure['message']}" if failure else example.said(result.get("output") or {})
    return Line(example.command, str(body.get("status", "")), said, seconds)


def _picture(artifact: Mapping[str, Any]) -> str:
    size = f"{artifact.get('width')}x{artifact.get('height')}"
    return f"{artifact.get('content_type')} {size}, {artifact.get('size_bytes')} bytes, at {artifact.get('href')}"


def _flat(value: Any) -> str:
    return " ".join(f"{name}={_flat(each)}" for name, each in value.items()) if isinstance(value, dict) else str(value)
