from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ErrorCode, Permanent
from workers.ai.configuration import Configuration, load
from workers.ai.routing.router import Exhausted, Route, Router

FILE = """
[providers.zai]
dialect = "openai"
base_url = "http://127.0.0.1:1/v1"
[providers.zai.models.glm-4-flash]
context_tokens = 8000
capabilities = ["json"]
[providers.zai.models.glm-4-long]
context_tokens = 1000000
[providers.local]
dialect = "openai"
base_url = "http://127.0.0.1:2/v1"
[providers.local.models."smollm2-135m"]
context_tokens = 2000
[providers.local.models."org/large"]
context_tokens = 32000
capabilities = ["json", "vision"]
[providers.other]
dialect = "openai"
base_url = "http://127.0.0.1:3/v1"
[providers.other.models.glm-4-flash]
[providers.other.models.huge]
context_tokens = 500000
[aliases.default]
models = ["zai/glm-4-flash", "local/smollm2-135m"]
[aliases.small]
models = ["local/smollm2-135m"]
[aliases.seeing]
capability = "json"
models = ["local/org/large"]
"""


def loaded(tmp_path: Path, content: str = FILE) -> Configuration:
    path = tmp_path / "providers.toml"
    path.write_text(content)
    return load(path, secret_from_environment=lambda _: None)


def routed(configuration: Configuration, **asked: Any) -> Route:
    question = {"model": None, "provider": None, "capabilities": None, "tokens_in": 10, "tokens_out": 100, **asked}
    return Router().route(configuration, **question)


def names(route: Route) -> list[str]:
    return [candidate.target.name for candidate in route.candidates]


@pytest.mark.parametrize(
    ("model", "provider_name", "expected"),
    [
        (None, None, ["zai/glm-4-flash", "local/smollm2-135m"]),
        ("default", None, ["zai/glm-4-flash", "local/smollm2-135m"]),
        ("small", None, ["local/smollm2-135m"]),
        ("seeing", None, ["local/org/large", "zai/glm-4-flash"]),
        ("local/org/large", None, ["local/org/large"]),
        ("org/large", None, ["local/org/large"]),
        ("glm-4-flash", None, ["zai/glm-4-flash", "other/glm-4-flash"]),
        (None, "local", ["local/smollm2-135m"]),
        (None, "other", ["other/glm-4-flash"]),
        ("default", "local", ["local/smollm2-135m"]),
        ("org/large", "local", ["local/org/large"]),
        ("local/org/large", "local", ["local/org/large"]),
    ],
)
def test_a_question_goes_to_alias_then_full_name_then_model_name(
    tmp_path: Path, model: str | None, provider_name: str | None, expected: list[str]
) -> None:
    assert names(routed(loaded(tmp_path), model=model, provider=provider_name)) == expected


def test_without_a_default_alias_the_first_model_answers(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, FILE.partition("[aliases.default]")[0])

    assert names(routed(configuration)) == ["zai/glm-4-flash"]


@pytest.mark.parametrize(
    ("model", "provider_name", "code", "words"),
    [
        ("glm-5", None, ErrorCode.MODEL_NOT_FOUND, "model glm-5 is not configured; configured: zai/glm-4-flash, zai/"),
        ("glm-4-flash", "local", ErrorCode.MODEL_NOT_FOUND, "configured: local/smollm2-135m"),
        ("zai/glm-4-flash", "local", ErrorCode.MODEL_NOT_FOUND, "configured: local/smollm2-135m"),
        (None, "none", ErrorCode.PROVIDER_NOT_CONFIGURED, "provider none is not configured; configured: zai, local"),
    ],
)
def test_what_is_not_configured_is_a_permanent_error_that_lists_what_is(
    tmp_path: Path, model: str | None, provider_name: str | None, code: ErrorCode, words: str
) -> None:
    with pytest.raises(Permanent) as caught:
        routed(loaded(tmp_path), model=model, provider=provider_name)

    assert caught.value.code == code
    assert words in caught.value.message


def test_with_nothing_configured_the_error_says_what_to_configure() -> None:
    with pytest.raises(Permanent) as caught:
        routed(Configuration())

    assert caught.value.code == ErrorCode.PROVIDER_NOT_CONFIGURED
    assert "set ISH_PROVIDERS_FILE" in caught.value.message


@pytest.mark.parametrize(
    ("model", "capabilities", "expected"),
    [
        (None, ["json"], ["zai/glm-4-flash"]),
        (None, ["vision"], ["local/org/large"]),
        ("seeing", ["vision", "json"], ["local/org/large"]),
    ],
)
def test_only_models_with_every_capability_are_asked(
    tmp_path: Path, model: str | None, capabilities: list[str], expected: list[str]
) -> None:
    assert names(routed(loaded(tmp_path), model=model, capabilities=capabilities)) == expected


@pytest.mark.parametrize(("model", "capability"), [(None, "hearing"), ("small", "vision")])
def test_a_capability_that_no_candidate_has_is_a_permanent_error(
    tmp_path: Path, model: str | None, capability: str
) -> None:
    with pytest.raises(Permanent, match=f"with the capabilities {capability}") as caught:
        routed(loaded(tmp_path), model=model, capabilities=[capability])

    assert caught.value.code == ErrorCode.MODEL_NOT_FOUND


def test_a_model_whose_context_is_too_small_is_left_out_and_the_reason_is_told(tmp_path: Path) -> None:
    route = routed(loaded(tmp_path), tokens_in=1950, tokens_out=100)

    assert names(route) == ["zai/glm-4-flash"]
    assert route.explain()["left_out"] == [
        {
            "target": "local/smollm2-135m",
            "score": None,
            "reason": "its context of 2000 tokens is too small for about 2050",
        }
    ]


def test_when_every_context_is_too_small_the_largest_is_tried_first(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, FILE + '[aliases.both]\nmodels = ["local/smollm2-135m", "zai/glm-4-flash"]\n')

    assert names(routed(configuration, model="both", tokens_in=9000)) == ["zai/glm-4-flash", "local/smollm2-135m"]


def test_an_unknown_context_fits(tmp_path: Path) -> None:
    assert names(routed(loaded(tmp_path), model="glm-4-flash", tokens_in=100_000)) == ["other/glm-4-flash"]


def test_what_was_tried_in_this_run_is_not_tried_again(tmp_path: Path) -> None:
    assert names(routed(loaded(tmp_path), exclude={"zai/glm-4-flash"})) == ["local/smollm2-135m"]


def test_when_everything_was_tried_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(Exhausted, match="every model that this command may use was tried"):
        routed(loaded(tmp_path), exclude={"zai/glm-4-flash", "local/smollm2-135m"})


def test_a_route_explains_itself_as_json(tmp_path: Path) -> None:
    explained = routed(loaded(tmp_path)).explain()

    assert explained == {
        "policy": "priority",
        "alias": "default",
        "candidates": [
            {"target": "zai/glm-4-flash", "score": None, "reason": "priority 1"},
            {"target": "local/smollm2-135m", "score": None, "reason": "priority 2"},
        ],
        "left_out": [],
    }


@pytest.mark.parametrize(
    ("alias", "needed", "provider_name", "exclude", "expected"),
    [
        ("seeing", 10_000, None, [], ["local/org/large", "zai/glm-4-long", "other/huge"]),
        (None, 10_000, None, [], ["zai/glm-4-long", "local/org/large", "other/huge"]),
        (None, 100_000, None, [], ["zai/glm-4-long", "other/huge"]),
        (None, 10, None, [], ["zai/glm-4-long", "local/org/large", "other/huge"]),
        (None, 10, "local", [], ["local/org/large"]),
        (None, 10, None, ["zai/glm-4-long"], ["local/org/large", "other/huge"]),
        (None, 2_000_000, None, [], []),
    ],
)
def test_a_question_too_long_goes_to_a_larger_context_of_the_alias_then_the_provider_then_any(
    tmp_path: Path,
    *,
    alias: str | None,
    needed: int,
    provider_name: str | None,
    exclude: list[str],
    expected: list[str],
) -> None:
    configuration = loaded(tmp_path)
    target = configuration.targets[0]

    larger = Router().larger(
        configuration, target, needed_tokens=needed, alias=alias, provider=provider_name, exclude=exclude
    )

    assert [one.name for one in larger] == expected
