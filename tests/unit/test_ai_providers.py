from typing import Any

import pytest
from pydantic import SecretStr

from contracts.errors import ErrorCode, Permanent
from workers.ai.configuration import Model, Provider, Target
from workers.ai.providers import DIALECTS
from workers.ai.providers.dialect import MalformedAnswer, Piece, Request

DIALOGUE = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Bye"},
]
OPTIONS: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "stop": ["END"], "seed": 1}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}


def built(
    dialect: str, *, base_url: str = "https://host/v1", stream: bool = True, key: bool = True, **options: Any
) -> Request:
    provider = Provider.model_validate(
        {"dialect": dialect, "base_url": base_url, "api_key_env": "KEY", "models": {"m": {}}}
    )
    target = Target("p", provider, "m", Model(), SecretStr("the-key") if key else None)
    return DIALECTS[dialect].build(target, DIALOGUE, options, stream=stream)


def test_openai_is_asked_for_the_usage_of_a_stream() -> None:
    request = built("openai", **OPTIONS)

    assert request.url == "https://host/v1/chat/completions"
    assert request.headers == {"Authorization": "Bearer the-key"}
    assert request.body == {
        "model": "m",
        "messages": DIALOGUE,
        **OPTIONS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("dialect", ["zai", "perplexity"])
def test_others_of_that_form_send_the_usage_unasked(dialect: str) -> None:
    request = built(dialect, base_url="https://host/api/paas/v4/", response_format=JSON_SCHEMA)

    assert request.url == "https://host/api/paas/v4/chat/completions"
    assert request.body == {"model": "m", "messages": DIALOGUE, "response_format": JSON_SCHEMA, "stream": True}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_plain_call_says_nothing_of_a_stream(dialect: str) -> None:
    assert not any("stream" in name for name in built(dialect, stream=False).body)


def test_a_server_without_a_key_is_asked_without_one() -> None:
    assert built("openai", key=False).headers == {}


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
        ("http://127.0.0.1:8089/v1", "max_tokens"),
    ],
)
def test_the_longest_answer_is_named_as_the_server_knows_it(base_url: str, name: str) -> None:
    body = built("openai", base_url=base_url, max_tokens=7).body

    assert {key: body[key] for key in body if key.endswith("tokens")} == {name: 7}


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        ("https://api.z.ai/api/anthropic/", "https://api.z.ai/api/anthropic/v1/messages"),
    ],
)
def test_anthropic_is_asked_in_its_own_form(base_url: str, url: str) -> None:
    request = built("anthropic", base_url=base_url, response_format=JSON_SCHEMA, **OPTIONS)

    assert request.url == url
    assert request.headers == {"x-api-key": "the-key", "anthropic-version": "2023-06-01"}
    assert request.body == {
        "model": "m",
        "max_tokens": 7,
        "system": "Be brief.\n\nBe kind.",
        "messages": [line for line in DIALOGUE if line["role"] != "system"],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        "stream": True,
    }


def test_anthropic_needs_a_longest_answer() -> None:
    assert built("anthropic", response_format={"type": "text"}).body["max_tokens"] == 4096


@pytest.mark.parametrize("response_format", [{"type": "json_object"}, {"type": "json_schema"}, {"type": "grammar"}])
def test_what_anthropic_cannot_be_asked_for_is_refused_and_not_left_out(response_format: dict[str, Any]) -> None:
    with pytest.raises(Permanent) as caught:
        built("anthropic", response_format=response_format)

    assert caught.value.code == ErrorCode.PROVIDER_REJECTED
    assert caught.value.details["scope"] == "model"  # another may be able to


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


@pytest.mark.parametrize(
    ("body", "piece"),
    [
        (delta(role="assistant", content=None), Piece()),
        (delta(content=""), Piece(text="")),
        (delta(content="a"), Piece(text="a")),
        (delta(reasoning_content="hm"), Piece(thought=True)),
        (delta(reasoning="hm"), Piece(thought=True)),
        (delta(refusal="no"), Piece(refused=True)),
        (
            delta(content=[{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}]),
            Piece(text="a"),
        ),
        ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, Piece(finish_reason="stop")),
        ({"choices": [{"delta": None, "finish_reason": "length"}]}, Piece(finish_reason="length")),
        (
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
            Piece(tokens_in=3, tokens_out=4),
        ),
        ({"choices": [], "usage": None, "prompt_filter_results": []}, Piece()),
        ({"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": "4"}}, Piece()),
        ({"object": "unheard.of"}, Piece()),
    ],
)
def test_a_chunk_is_read(body: dict[str, Any], piece: Piece) -> None:
    for dialect in ("openai", "zai", "perplexity"):
        assert DIALECTS[dialect].read_event(body) == piece


@pytest.mark.parametrize(
    "body",
    [None, [], "text", {"choices": "x"}, {"choices": ["x"]}, delta(content=7), {"choices": [{"finish_reason": 1}]}],
)
def test_a_chunk_of_another_form_is_malformed(body: Any) -> None:
    with pytest.raises(MalformedAnswer):
        DIALECTS["openai"].read_event(body)


def test_perplexity_brings_citations_and_cleaned_sources() -> None:
    body = {
        **delta(content="a"),
        "citations": ["https://a", 7],
        "search_results": [{"url": "https://a", "title": "A", "date": None, "snippet": "long"}, {"title": "no url"}],
    }

    piece = DIALECTS["perplexity"].read_event(body)

    assert piece == Piece(text="a", citations=("https://a",), sources=({"url": "https://a", "title": "A"},))


def test_perplexitys_newer_answers_cite_by_their_search_results() -> None:
    body = {**delta(content="a"), "search_results": [{"url": "https://a", "date": "2026-05-01"}]}

    assert DIALECTS["perplexity"].read_event(body).citations == ("https://a",)


@pytest.mark.parametrize(
    ("body", "piece"),
    [
        (
            {"type": "message_start", "message": {"usage": {"input_tokens": 3, "cache_read_input_tokens": 4}}},
            Piece(tokens_in=7),
        ),
        ({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, Piece(text="")),
        ({"type": "content_block_start", "content_block": {"type": "thinking", "thinking": ""}}, Piece()),
        ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}, Piece(text="a")),
        ({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}, Piece(thought=True)),
        ({"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x"}}, Piece()),
        (
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
            Piece(finish_reason="end_turn", tokens_out=5),
        ),
        ({"type": "message_stop"}, Piece(ends=True)),
        ({"type": "ping"}, Piece(idle=True)),
        ({"type": "of_next_year"}, Piece()),
    ],
)
def test_an_event_of_anthropic_is_read(body: dict[str, Any], piece: Piece) -> None:
    assert DIALECTS["anthropic"].read_event(body) == piece


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"type": 7},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": 7}},
        {"type": "message_delta", "delta": {"stop_reason": 7}},
        {"type": "message_delta"},
    ],
)
def test_an_event_of_anthropic_of_another_form_is_malformed(body: Any) -> None:
    with pytest.raises(MalformedAnswer):
        DIALECTS["anthropic"].read_event(body)


def test_a_whole_answer_of_anthropic_is_its_text_blocks_joined() -> None:
    body = {
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "a"},
            {"type": "text", "text": "b"},
        ],
        "stop_reason": "max_tokens",
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }

    assert DIALECTS["anthropic"].read_whole(body) == Piece("ab", finish_reason="max_tokens", tokens_in=1, tokens_out=2)
    assert DIALECTS["anthropic"].finished["max_tokens"] == "length"
