from pathlib import Path

import pytest

from workers.ai.configuration import Configuration, ConfigurationError, Model, load

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


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[providers", "is not TOML: "),
        ("", "providers: is missing"),
        ("[providers]", "providers: must not be empty"),
        (provider(OPENAI), "[providers.p] base_url: is missing"),
        (provider(ADDRESS), "[providers.p] dialect: is missing"),
        (
            provider(ADDRESS, 'dialect = "grok"'),
            "[providers.p] dialect: must be one of openai, zai, perplexity, anthropic",
        ),
        (
            provider(ADDRESS, 'dialect = "anthropic"'),
            "[providers.p] a provider of dialect anthropic needs api_key_file or api_key_env",
        ),
        (provider(OPENAI, 'base_url = "ftp://x"'), "[providers.p] base_url: must be a URL that starts with http"),
        (provider(OPENAI, 'base_url = "https://u:p@x/v1"'), "[providers.p] base_url: must hold no user"),
        (provider(OPENAI, 'base_url = "https://x:99999/v1"'), "[providers.p] base_url: is not a URL"),
        (provider(OPENAI, 'base_url = "https://x/v1/chat/completions"'), "must end before /chat/completions"),
        (provider(OPENAI, ADDRESS, "idle_timeout_seconds = 0"), "[providers.p] idle_timeout_seconds: must be above 0"),
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
            "[providers.p.models.m] context_tokens: must be at least 1",
        ),
        (
            provider(OPENAI, ADDRESS) + '\n[aliases.a]\nmodels = ["p/x"]',
            "[aliases.a] models: 'p/x' is not one of p/m",
        ),
        (
            provider(OPENAI, ADDRESS) + '\n[aliases.a]\npolicy = "luckiest"\nmodels = ["p/m"]',
            "[aliases.a] policy: must be one of priority, weighted, fastest, cheapest, balanced",
        ),
        (provider(OPENAI, ADDRESS) + "\n[aliases.a]", "[aliases.a] models or capability is missing"),
        (
            provider(OPENAI, ADDRESS) + '\n[aliases.a]\ncapability = "vision"',
            "[aliases.a] capability: no model has 'vision'",
        ),
        (
            provider(OPENAI, ADDRESS, model="[providers.p.models.m]\nrequests_per_minute = 0"),
            "[providers.p.models.m] requests_per_minute: must be at least 1",
        ),
        (provider(OPENAI, ADDRESS, "weight = -1"), "[providers.p] weight: must be above 0"),
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


def test_an_alias_may_name_a_capability_and_bound_its_calls(tmp_path: Path) -> None:
    content = provider(OPENAI, ADDRESS, model='[providers.p.models.m]\ncapabilities = ["vision"]')

    configuration = loaded(tmp_path, content + '\n[aliases.eyes]\ncapability = "vision"\ncache = true\nmax_calls = 2')

    eyes = configuration.aliases["eyes"]
    assert (eyes.models, eyes.capability, eyes.cache, eyes.max_calls) == ((), "vision", True, 2)


@pytest.mark.parametrize(
    ("own", "providers", "weight"), [(None, None, 1.0), (None, "weight = 3", 3.0), ("weight = 0.5", "weight = 3", 0.5)]
)
def test_a_models_weight_is_its_own_or_its_providers_or_one(
    tmp_path: Path, own: str | None, providers: str | None, weight: float
) -> None:
    model = "[providers.p.models.m]\n" + (own or "")

    configuration = loaded(tmp_path, provider(OPENAI, ADDRESS, providers or "", model=model))

    assert configuration.targets[0].weight == weight


def test_the_cost_of_a_call_needs_both_prices_and_both_counts() -> None:
    priced = Model(input_usd_per_million_tokens=1, output_usd_per_million_tokens=4)

    assert priced.cost_usd(tokens_in=1_000_000, tokens_out=500_000) == 3.0
    assert priced.cost_usd(tokens_in=None, tokens_out=1) is None
    assert Model(input_usd_per_million_tokens=1).cost_usd(tokens_in=1, tokens_out=1) is None
