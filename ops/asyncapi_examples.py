"""One or more examples of every message, for the AsyncAPI document; a test validates each of them."""

from typing import Any

COMMAND_ID = "6f1a3f0e-6a0b-4a53-8a43-0c7f3c1d9a10"
PUBLISHER = "demo"
DEADLINE_MS = 1_767_229_200_000

Example = tuple[str, dict[str, Any], dict[str, Any]]
"""What it shows, its headers, its payload."""

COMMANDS: dict[str, list[Example]] = {
    "relay": [
        (
            "A message of a conversation",
            {},
            {
                "sender": "user",
                "message": "hello",
                "timestamp": "2026-01-01T12:00:00Z",
                "conversation_id": "tour",
                "metadata": {"channel": "web"},
            },
        ),
        (
            "A message that a model answers, within the hour",
            {"x-deadline-ms": DEADLINE_MS},
            {
                "sender": "user",
                "message": "What is a message broker?",
                "timestamp": "2026-01-01T12:00:00Z",
                "conversation_id": "tour",
                "ask": {"model": "default", "max_tokens": 200},
            },
        ),
    ],
    "ai.send": [
        ("One question", {}, {"prompt": "What is a message broker?"}),
        (
            "A dialogue, with options",
            {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
            {
                "model": "default",
                "messages": [
                    {"role": "system", "content": "Answer in one sentence."},
                    {"role": "user", "content": "What is a quorum queue?"},
                ],
                "temperature": 0.2,
                "max_tokens": 100,
            },
        ),
        ("Work that may wait", {"x-priority": "batch"}, {"prompt": "Summarise: ...", "max_tokens": 500}),
    ],
    "android.execute": [
        ("One action, on any healthy phone", {}, {"action": "getprop", "name": "ro.product.model"}),
        ("A tap on one phone", {}, {"action": "tap", "x": 540, "y": 1200, "device": "R58M12ABCDE"}),
        ("A line as for adb", {}, {"command": "shell getprop ro.product.model", "tag": "lab"}),
        (
            "Several actions in a row",
            {},
            {
                "action": "batch",
                "actions": [{"action": "wake"}, {"action": "start_app", "package": "com.android.settings"}],
            },
        ),
    ],
}

_TIMES = {
    "accepted_at": "2026-01-01T12:00:00.120Z",
    "started_at": "2026-01-01T12:00:00.131Z",
    "finished_at": "2026-01-01T12:00:00.480Z",
}
_OUTPUTS: dict[str, dict[str, Any]] = {
    "relay": {"conversation_id": "tour"},
    "ai.send": {"text": "A broker takes messages and hands them on.", "model": "default"},
    "android.execute": {"value": "Pixel 7"},
}


def results(kind: str) -> list[Example]:
    """Results of one kind.

    Args:
        kind: Its name.
    """
    ended = {"command_id": COMMAND_ID, "kind": kind, "attempts": 1, **_TIMES, "worker": "host:4711"}
    return [
        ("It succeeded", {}, {**ended, "status": "succeeded", "output": _OUTPUTS[kind]}),
        (
            "Its deadline passed",
            {},
            {
                **ended,
                "status": "expired",
                "attempts": 0,
                "started_at": None,
                "error": {
                    "code": "deadline_passed",
                    "message": "Its deadline passed before it ran.",
                    "retryable": False,
                },
            },
        ),
    ]


REFUSALS: list[Example] = [
    (
        "A message of a type that nobody knows",
        {},
        {
            "command_id": COMMAND_ID,
            "kind": "unknown",
            "status": "failed",
            "error": {
                "code": "unknown_type",
                "message": "type must be one of relay.v1, ai.send.v1, android.execute.v1, not 'coffee.v1'",
                "retryable": False,
            },
            "attempts": 0,
            "accepted_at": _TIMES["accepted_at"],
            "started_at": None,
            "finished_at": _TIMES["accepted_at"],
            "worker": None,
        },
    )
]
