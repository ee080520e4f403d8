from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ErrorCode
from gateway.http.problems import Problem, ProblemType
from gateway.openai.answers import Chunks, completion
from gateway.openai.failures import COMMAND_ID, of_problem, of_result, unfinished
from gateway.openai.requests import read_request
from gateway.publishing import Standing
from gateway.services.transcript import Entry, Transcript

ID = UUID("00000000-0000-4000-8000-000000000001")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STANDING = Standing(ID, "queued", NOW, NOW)
USER = {"role": "user", "content": "hello"}
OUTPUT: dict[str, Any] = {
    "text": "Hello!",
    "model": "glm-4-flash",
    "provider": "zai",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


def _read(**members: Any) -> Any:
    return read_request(orjson.dumps({"model": "default", "messages": [USER], **members}))


def test_request_becomes_the_payload_of_a_command() -> None:
    request = _read(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": "Three", "refusal": None, "tool_calls": None},
            USER,
        ],
        temperature=0,
        top_p=0.5,
        max_completion_tokens=100,
        stop="END",
        seed=7,
        stream=True,
        stream_options={"include_usage": True},
        response_format={"type": "json_object"},
        user="u-1",
        metadata={"a": "b"},
        service_tier="flex",
        provider="zai",
        conversation_id="talk",
        cache=True,
        capabilities=["json"],
    )

    assert request.payload.model_dump(exclude_unset=True) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One\ntwo"},
            {"role": "assistant", "content": "Three"},
            USER,
        ],
        "model": "default",
        "provider": "zai",
        "conversation_id": "talk",
        "temperature": 0,
        "top_p": 0.5,
        "max_tokens": 100,
        "stop": ["END"],
        "seed": 7,
        "capabilities": ["json"],
        "response_format": {"type": "json_object"},
        "stream": True,
        "cache": True,
        "metadata": {"a": "b", "user": "u-1"},
    }
    assert (request.include_usage, request.priority) == (True, "batch")


@pytest.mark.parametrize("model", ["", None])
def test_no_model_is_the_default(model: str | None) -> None:
    request = _read(model=model)

    assert request.payload.model is None
    assert request.model == "default"


@pytest.mark.parametrize(
    "neutral",
    [
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"n": 1, "logprobs": False, "logit_bias": {}, "presence_penalty": 0.0, "frequency_penalty": 0},
        {"modalities": ["text"], "audio": None, "store": False, "response_format": {"type": "text"}},
        {"prompt_cache_key": "anything", "safety_identifier": "anything"},
        {"max_tokens": 5, "max_completion_tokens": 5},
    ],
)
def test_what_asks_for_nothing_is_taken(neutral: dict[str, Any]) -> None:
    assert _read(**neutral).payload.messages


@pytest.mark.parametrize(
    ("members", "param", "code"),
    [
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hello"}, "messages", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [USER, {"role": "user"}]}, "messages[1].content", "invalid_value"),
        ({"messages": [{**USER, "name": "Ann"}]}, "messages[0].name", "unsupported_parameter"),
        ({"messages": [{**USER, "colour": "red"}]}, "messages[0].colour", "unknown_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
            "unsupported_parameter",
        ),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
        ({"service_tier": "gold"}, "service_tier", "invalid_value"),
        ({"user": 7}, "user", "invalid_value"),
        ({"response_format": {"type": []}}, "response_format", "invalid_value"),
        ({"stream": True, "stream_options": {"other": []}}, "stream_options.other", "unsupported_parameter"),
        ({"model": ["a"]}, "model", "invalid_value"),
        ({"model": "no such model"}, "model", "model_not_found"),
        ({"whatever": 1}, "whatever", "unknown_parameter"),
        ({"cache": True}, "messages", "invalid_value"),
    ],
)
def test_what_is_wrong_is_named(members: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(Problem) as caught:
        _read(**members)

    failure = of_problem(caught.value)
    assert (failure.param, failure.code) == (param, code)
    assert failure.status == (404 if code == "model_not_found" else 400)
    assert failure.type == "invalid_request_error"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "include_usage"]), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.sampled_from(
        ["messages", "model", "stop", "tools", "n", "stream_options", "metadata", "response_format", "cache"]
    ),
)
def test_any_value_of_any_parameter_is_taken_or_refused_as_a_problem(value: Any, name: str) -> None:
    with suppress(Problem):
        assert _read(**{name: value}).payload.messages


@given(st.binary(max_size=50))
def test_body_that_is_no_request_is_a_400(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read_request(body)

    assert of_problem(caught.value).status == 400


def test_completion_has_openais_form() -> None:
    document = orjson.loads(completion(STANDING, {"output": {**OUTPUT, "citations": ["https://a"]}}))

    assert document == {
        "id": f"chatcmpl-{ID}",
        "object": "chat.completion",
        "created": int(NOW.timestamp()),
        "model": "glm-4-flash",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello!", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        "citations": ["https://a"],
    }


def test_counts_that_a_provider_did_not_give_are_none() -> None:
    document = orjson.loads(completion(STANDING, {"output": {**OUTPUT, "usage": {"prompt_tokens": 3}}}))

    assert document["usage"] is None


def _datas(stream: bytes) -> list[Any]:
    return [orjson.loads(one.removeprefix(b"data: ")) for one in stream.split(b"\n\n") if one and b"[DONE]" not in one]


def test_chunks_say_who_speaks_then_the_text_then_how_it_ended() -> None:
    chunks = Chunks(STANDING, "default", include_usage=True)

    stream = chunks.text("Hel") + chunks.text("lo!") + chunks.end(OUTPUT)

    first, one, two, last, counts = _datas(stream)
    assert {(part["id"], part["object"], part["model"]) for part in (first, one, two, last, counts)} == {
        (f"chatcmpl-{ID}", "chat.completion.chunk", "default")
    }
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert [part["choices"][0]["delta"]["content"] for part in (one, two)] == ["Hel", "lo!"]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert (counts["choices"], counts["usage"]["total_tokens"]) == ([], 5)
    assert stream.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("code", "details", "status", "name"),
    [
        (ErrorCode.MODEL_NOT_FOUND, {}, 404, "model_not_found"),
        (ErrorCode.CONTEXT_TOO_LONG, {}, 400, "context_length_exceeded"),
        (ErrorCode.CONTENT_REFUSED, {}, 400, "content_filter"),
        (ErrorCode.PROVIDER_RATE_LIMITED, {}, 429, "rate_limit_exceeded"),
        (ErrorCode.DEADLINE_PASSED, {"last_error": "provider_rate_limited"}, 429, "rate_limit_exceeded"),
        (ErrorCode.DEADLINE_PASSED, {"last_error": "no_capacity"}, 503, "no_capacity"),
        (ErrorCode.DEADLINE_PASSED, {"last_error": "provider_timeout"}, 504, "deadline_passed"),
        (ErrorCode.DEADLINE_PASSED, {}, 504, "deadline_passed"),
        (ErrorCode.ATTEMPTS_EXHAUSTED, {"last_error": "provider_unavailable"}, 502, "attempts_exhausted"),
        (ErrorCode.PROVIDER_NOT_CONFIGURED, {}, 503, "provider_not_configured"),
        (ErrorCode.PROVIDER_MALFORMED, {}, 502, "provider_malformed"),
        (ErrorCode.POISON, {}, 500, "poison"),
    ],
)
def test_failed_command_has_the_status_that_an_sdk_knows(
    code: ErrorCode, details: dict[str, Any], status: int, name: str
) -> None:
    document = {
        "command_id": str(ID),
        "status": "failed",
        "error": {"code": code.value, "message": "why", "details": details},
    }

    failure = of_result(document, provider_named=False)

    assert (failure.status, failure.code, failure.message) == (status, name, "why")
    assert failure.headers == {COMMAND_ID: str(ID), "x-should-retry": "false"}


def test_every_error_of_a_provider_has_a_status_of_its_own() -> None:
    for code in ErrorCode:
        if code.startswith("provider_"):
            document = {"command_id": str(ID), "status": "failed", "error": {"code": code.value, "message": "why"}}
            assert of_result(document, provider_named=True).status != 500


def test_request_that_ends_before_its_command_names_it() -> None:
    failure = unfinished(ID, "The gateway is stopping.", status=503, code="gateway_stopping", keyed=True)

    assert f"GET /api/commands/{ID}" in failure.message
    assert failure.headers["x-should-retry"] == "true"


def test_unconfirmed_publish_is_not_sent_again_by_an_sdk() -> None:
    failure = of_problem(Problem(ProblemType.NOT_CONFIRMED, "Perhaps.", members={"id": str(ID)}))

    assert failure.status == 503
    assert failure.headers["x-should-retry"] == "false"
    assert failure.headers[COMMAND_ID] == str(ID)


@pytest.mark.parametrize("type_", ProblemType)
def test_every_problem_has_openais_form(type_: ProblemType) -> None:
    failure = of_problem(Problem(type_, "why"))

    assert set(orjson.loads(failure.body())["error"]) == {"message", "type", "param", "code"}
    assert failure.type == ("server_error" if failure.status >= 500 else "invalid_request_error")


def _entries(*pairs: tuple[str, str]) -> list[Entry]:
    return [Entry((position, 0), run, text) for position, (run, text) in enumerate(pairs, start=1)]


def test_transcript_knows_what_the_result_has_beyond_it() -> None:
    transcript = Transcript()
    for entry in _entries(("a", "Grü"), ("a", "ße "), ("a", "")):
        assert not transcript.add(entry)

    assert transcript.rest("Grüße allerseits") == "allerseits"
    assert transcript.rest("Grüße ") == ""
    assert transcript.rest("Grüs") is None
    assert transcript.rest("Other text") is None


def test_transcript_begins_anew_with_another_run_and_forgets_a_late_one() -> None:
    transcript = Transcript()
    entries = _entries(("a", "one"), ("b", "two"), ("a", "late"), ("b", "!"))

    restarted = [transcript.add(entry) for entry in entries]

    assert restarted == [False, True, False, False]
    assert [transcript.counts(entry) for entry in entries] == [False, True, False, True]
    assert transcript.rest("two! and more") == " and more"


def test_run_without_text_is_no_restart() -> None:
    transcript = Transcript()

    assert [transcript.add(entry) for entry in _entries(("a", ""), ("b", "x"))] == [False, False]


@given(st.lists(st.text(max_size=5), max_size=6), st.text(max_size=5))
def test_transcript_of_pieces_is_that_of_the_whole(pieces: list[str], rest: str) -> None:
    transcript = Transcript()
    for entry in _entries(*(("a", piece) for piece in pieces)):
        transcript.add(entry)

    assert transcript.rest("".join(pieces) + rest) == rest
