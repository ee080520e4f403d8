import json
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.ai.chat import AiSend


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def first_fault(payload: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        AiSend.model_validate(payload)
    fault = caught.value.errors()[0]
    return ".".join(str(step) for step in fault["loc"]), fault["msg"]


@pytest.mark.parametrize(
    ("payload", "field", "words"),
    [
        ({}, "", "one of prompt and messages is required"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "", "not both"),
        ({"prompt": ""}, "prompt", "at least 1 character"),
        ({"prompt": "x" * 100_001}, "prompt", "at most 100000 characters"),
        ({"prompt": "a\x00b"}, "prompt", "NUL"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role", "'system', 'user' or 'assistant'"),
        ({"messages": [{"role": "user", "content": "a\x00"}]}, "messages.0.content", "NUL"),
        ({"messages": [{"role": "user", "content": "a"}] * 1001}, "messages", "at most 1000 items"),
        ({"prompt": "a", "stop": ["b", "\x00"]}, "stop.1", "NUL"),
        ({"prompt": "a", "system": "\x00"}, "system", "NUL"),
        ({"prompt": "a", "conversation_id": "a b"}, "conversation_id", "pattern"),
        ({"prompt": "a", "conversation_id": "a\n"}, "conversation_id", "pattern"),
        ({"prompt": "a", "model": "../x"}, "model", "pattern"),
        ({"prompt": "a", "temperature": float("nan")}, "temperature", "finite"),
        ({"prompt": "a", "temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens", "valid integer"),
        ({"prompt": "a", "timeout_seconds": 601}, "timeout_seconds", "less than or equal to 600"),
        ({"prompt": "a", "in_reply_to": "1"}, "in_reply_to", "UUID"),
        ({"prompt": "a", "in_reply_to": "6e1d2c9e-7f1b-4d0c-9d55-5d5b8f3a1f00"}, "", "needs conversation_id"),
        ({"prompt": "a", "metadata": {"a": ["\x00"]}}, "metadata", "NUL"),
        ({"prompt": "a", "metadata": {"\x00": 1}}, "metadata", "NUL"),
        ({"prompt": "a", "metadata": {"a": float("inf")}}, "metadata", "finite"),
        ({"prompt": "a", "metadata": {"a": 2**70}}, "metadata", "64-bit"),
        ({"prompt": "a", "metadata": {"a": "x" * 16_384}}, "metadata", "at most 16384 bytes"),
        ({"prompt": "a", "metadata": nested(5_000)}, "metadata", "nested deeper than 32 levels"),
        ({"prompt": "a", "unknown": 1}, "unknown", "not permitted"),
        ({"prompt": "a", "cache": True}, "", "temperature 0 or a seed"),
        ({"prompt": "a", "cache": True, "temperature": 0.5}, "", "temperature 0 or a seed"),
        ({"prompt": "a", "capabilities": []}, "capabilities", "at least 1"),
    ],
)
def test_a_wrong_payload_names_its_field_and_its_rule(payload: dict[str, Any], field: str, words: str) -> None:
    place, sentence = first_fault(payload)

    assert place == field
    assert words in sentence


def test_a_payload_with_every_field_survives_a_round_trip_through_json() -> None:
    payload = {
        "messages": [{"role": "user", "content": "hello"}],
        "system": "be brief",
        "model": "zai/glm-4-flash",
        "provider": "zai",
        "conversation_id": "room:1",
        "temperature": 0.5,
        "top_p": 1,
        "max_tokens": 5,
        "stop": ["\n"],
        "seed": 7,
        "capabilities": ["vision"],
        "response_format": {"type": "json_object"},
        "stream": True,
        "cache": True,
        "timeout_seconds": 600,
        "in_reply_to": "6e1d2c9e-7f1b-4d0c-9d55-5d5b8f3a1f00",
        "metadata": nested(31) | {"escaped": "\\u0000"},
    }

    parsed = AiSend.model_validate_json(json.dumps(payload))

    assert parsed.model_dump(mode="json", exclude_none=True) == payload


def test_one_stop_sequence_may_stand_without_a_list() -> None:
    assert AiSend.model_validate({"prompt": "a", "stop": "\n"}).stop == ["\n"]


def test_the_system_line_comes_first_and_the_question_is_the_newest_user_line() -> None:
    payload = AiSend.model_validate(
        {
            "system": "be brief",
            "messages": [
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "yes"},
                {"role": "user", "content": "second"},
                {"role": "assistant", "content": "so"},
            ],
        }
    )

    assert [line["content"] for line in payload.dialogue()] == ["be brief", "first", "yes", "second", "so"]
    assert payload.question() == "second"


def test_the_published_schema_says_that_exactly_one_question_is_needed() -> None:
    required = [choice["required"] for choice in AiSend.model_json_schema()["oneOf"]]

    assert required == [["prompt"], ["messages"]]
