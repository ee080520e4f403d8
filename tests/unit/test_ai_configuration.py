from pathlib import Path

import pytest

from contracts.errors import ErrorCode, Permanent
from workers.ai.configuration import Configuration, ConfigurationError, Model, load
from workers.ai.routing import candidates

TWO_PROVIDERS = """
[providers.zai]
dialect = "zai"
base_url = "https://open.bigmodel.cn/api/paas/v4/"
api_key_file = "secrets/zai"
max_in_flight = 10
[providers.zai.models.glm-4-flash]
context_tokens = 128000
input_usd_per_million_tokens = 0.1
output_usd_per_million_tokens = 0.4
[providers.local]
dialect = "openai"
base_url = "http://127.0.0.1:8089/v1"
[providers.local.models."smollm2-135m"]
[providers.local.models."org/large"]
[aliases.default]
policy = "priority"
models = ["zai/glm-4-flash", "local/smollm2-135m"]
[aliases.small]
models = ["local/smollm2-135m"]
"""


def written(tmp_path: Path, content: str) -> Path:
    (tmp_path / "secrets").mkdir(exist_ok=True)
    (tmp_path / "secrets" / "zai").write_text("key-of-zai\n")
    (tmp_path / "secrets" / "empty").write_text("\n")
    (tmp_path / "secrets" / "odd").write_text("two words\n")
    (tmp_path / "secrets" / "printed").write_text("admin123\n")
    path = tmp_path / "providers.toml"
    path.write_text(content)
    return path


def loaded(tmp_path: Path, content: str = TWO_PROVIDERS, **environment: str) -> Configuration:
    return load(written(tmp_path, content), secret_from_environment=environment.get)


def provider(*lines: str, model: str = "[providers.p.models.m]", name: str = "p") -> str:
    return "\n".join([f"[providers.{name}]", *lines, model])


OPENAI = 'dialect = "openai"'
ADDRESS = 'base_url = "http://127.0.0.1:1/v1"'


def test_the_documented_form_is_read_with_its_key_beside_it(tmp_path: Path) -> None:
    configuration = loaded(tmp_path)

    zai = configuration.targets[0]
    assert zai.name == "zai/glm-4-flash"
    assert zai.provider.base_url == "https://open.bigmodel.cn/api/paas/v4"
    assert zai.api_key is not None
    assert zai.api_key.get_secret_value() == "key-of-zai"
    assert "key-of-zai" not in repr(configuration)
    assert configuration.targets[1].api_key is None


def test_a_key_may_come_from_a_named_variable(tmp_path: Path) -> None:
    content = provider(OPENAI, ADDRESS, 'api_key_env = "VENDOR_KEY"')

    configuration = loaded(tmp_path, content, VENDOR_KEY="from-environment")

    key = configuration.targets[0].api_key
    assert key is not None
    assert key.get_secret_value() == "from-environment"


def test_limits_that_have_no_effect_yet_are_named(tmp_path: Path) -> None:
    assert loaded(tmp_path).limits_not_enforced() == ["providers.zai.max_in_flight"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[providers", "is not TOML: "),
        ("", "providers: is missing"),
        ("[providers]", "providers: Dictionary should have at least 1 item"),
        (provider(OPENAI), "[providers.p] base_url: is missing"),
        (provider(ADDRESS), "[providers.p] dialect: is missing"),
        (provider(ADDRESS, 'dialect = "grok"'), "[providers.p] dialect: Input should be 'openai', 'zai'"),
        (
            provider(ADDRESS, 'dialect = "anthropic"'),
            "[providers.p] dialect: anthropic is not supported yet; supported are openai, zai and perplexity",
        ),
        (provider(OPENAI, 'base_url = "ftp://x"'), "[providers.p] base_url: must be a URL that starts with http"),
        (provider(OPENAI, 'base_url = "https://u:p@x/v1"'), "[providers.p] base_url: must hold no user"),
        (provider(OPENAI, 'base_url = "https://x:99999/v1"'), "[providers.p] base_url: is not a URL"),
        (provider(OPENAI, 'base_url = "https://x/v1/chat/completions"'), "must end before /chat/completions"),
        (provider(OPENAI, ADDRESS, "idle_timeout_seconds = 0"), "[providers.p] idle_timeout_seconds: Input should be"),
        (provider(OPENAI, ADDRESS, 'api_key = "secret-value"'), "[providers.p] api_key: is not a key of this table"),
        (provider(OPENAI, ADDRESS, 'api_key_file = "a"', 'api_key_env = "B"'), "not both"),
        (provider(ADDRESS, 'dialect = "zai"'), "dialect zai needs api_key_file or api_key_env"),
        (provider(OPENAI, ADDRESS, 'api_key_file = "secrets/none"'), "secrets/none: cannot be read: No such file"),
        (provider(OPENAI, ADDRESS, 'api_key_file = "secrets/empty"'), "secrets/empty is empty"),
        (provider(OPENAI, ADDRESS, 'api_key_file = "secrets/odd"'), "one word of printable ASCII"),
        (provider(OPENAI, ADDRESS, 'api_key_file = "secrets/printed"'), "printed in public reports"),
        (provider(OPENAI, ADDRESS, 'api_key_env = "VENDOR_KEY"'), "[providers.p] api_key_env: VENDOR_KEY is not set"),
        (provider(OPENAI, ADDRESS, model=""), "[providers.p] models: is missing"),
        (provider(OPENAI, ADDRESS, name='"a b"', model=""), "[providers.a b] is not a usable name"),
        (
            provider(OPENAI, ADDRESS, model="[providers.p.models.m]\ncontext_tokens = -1"),
            "[providers.p.models.m] context_tokens: Input should be greater than or equal to 1",
        ),
        (
            provider(OPENAI, ADDRESS) + '\n[aliases.a]\nmodels = ["p/x"]',
            "[aliases.a] models: 'p/x' is not one of p/m",
        ),
        (
            provider(OPENAI, ADDRESS) + '\n[aliases.a]\npolicy = "fastest"\nmodels = ["p/m"]',
            "[aliases.a] policy: fastest is not supported yet; supported is priority",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_table_and_key(
    tmp_path: Path, content: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, content)

    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'providers.toml'}: ")
    assert sentence in message
    assert "\n" not in message
    assert "secret-value" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml", secret_from_environment=lambda _: None)


@pytest.mark.parametrize(
    ("model", "provider_name", "expected"),
    [
        (None, None, ["zai/glm-4-flash", "local/smollm2-135m"]),
        ("default", None, ["zai/glm-4-flash", "local/smollm2-135m"]),
        ("small", None, ["local/smollm2-135m"]),
        ("local/org/large", None, ["local/org/large"]),
        ("org/large", None, ["local/org/large"]),
        ("glm-4-flash", None, ["zai/glm-4-flash"]),
        (None, "local", ["local/smollm2-135m"]),
        ("default", "local", ["local/smollm2-135m"]),
        ("org/large", "local", ["local/org/large"]),
        ("local/org/large", "local", ["local/org/large"]),
    ],
)
def test_a_question_goes_to_alias_then_full_name_then_model_name(
    tmp_path: Path, model: str | None, provider_name: str | None, expected: list[str]
) -> None:
    found = candidates(loaded(tmp_path), model=model, provider=provider_name)

    assert [target.name for target in found] == expected


def test_without_a_default_alias_the_first_model_answers(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, provider(OPENAI, ADDRESS))

    assert [target.name for target in candidates(configuration, model=None, provider=None)] == ["p/m"]


@pytest.mark.parametrize(
    ("model", "provider_name", "code", "words"),
    [
        (
            "glm-5",
            None,
            ErrorCode.MODEL_NOT_FOUND,
            "model glm-5 is not configured; configured: zai/glm-4-flash, local/",
        ),
        ("glm-4-flash", "local", ErrorCode.MODEL_NOT_FOUND, "configured: local/smollm2-135m"),
        ("zai/glm-4-flash", "local", ErrorCode.MODEL_NOT_FOUND, "configured: local/smollm2-135m"),
        (None, "other", ErrorCode.PROVIDER_NOT_CONFIGURED, "provider other is not configured; configured: zai, local"),
    ],
)
def test_what_is_not_configured_is_a_permanent_error_that_lists_what_is(
    tmp_path: Path, model: str | None, provider_name: str | None, code: ErrorCode, words: str
) -> None:
    with pytest.raises(Permanent) as caught:
        candidates(loaded(tmp_path), model=model, provider=provider_name)

    assert caught.value.code == code
    assert words in caught.value.message


def test_with_nothing_configured_the_error_says_what_to_configure() -> None:
    with pytest.raises(Permanent) as caught:
        candidates(Configuration(), model=None, provider=None)

    assert caught.value.code == ErrorCode.PROVIDER_NOT_CONFIGURED
    assert "set ISH_PROVIDERS_FILE" in caught.value.message


def test_the_cost_of_a_call_needs_both_prices_and_both_counts() -> None:
    priced = Model(input_usd_per_million_tokens=1, output_usd_per_million_tokens=4)

    assert priced.cost_usd(tokens_in=1_000_000, tokens_out=500_000) == 3.0
    assert priced.cost_usd(tokens_in=None, tokens_out=1) is None
    assert Model(input_usd_per_million_tokens=1).cost_usd(tokens_in=1, tokens_out=1) is None
