"""The providers file: which AI providers, models and aliases there are, read from TOML and checked to the last key.

[providers.zai]
dialect = "zai"                  # zai | openai | perplexity | anthropic
base_url = "https://open.bigmodel.cn/api/paas/v4"
api_key_file = "secrets/zai"     # relative to this file; or api_key_env = "ZAI_API_KEY"
[providers.zai.models.glm-4-flash]
[aliases.default]
policy = "priority"              # priority | weighted | fastest | cheapest | balanced
models = ["zai/glm-4-flash"]     # and, or instead, capability = "vision": the models that have it
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import httpx
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from contracts.faults import rule_of
from contracts.settings import refuse_printed_secret

Dialect = Literal["openai", "zai", "perplexity", "anthropic"]
Policy = Literal["priority", "weighted", "fastest", "cheapest", "balanced"]

_NEEDS_KEY = frozenset({"zai", "perplexity", "anthropic"})


class ConfigurationError(ValueError):
    """The providers file cannot be used; the message is one line that names file, table and key."""


def _usable_base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port, httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise ValueError(f"is not a URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL that starts with http:// or https://")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must hold no user, password, query or fragment")
    for ending in ("/chat/completions", "/messages"):
        if parts.path.rstrip("/").endswith(ending):
            raise ValueError(f"must end before {ending}, which is added")
    return url.rstrip("/")


ProviderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,199}$")]
Seconds = Annotated[float, Field(gt=0, le=600)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Capability = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Limits(_Table):
    """What all workers together may ask for; None is no limit."""

    max_in_flight: int | None = Field(default=None, ge=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Its share under `weighted`, `fastest` and `balanced`; without it a model takes its provider's, and that is 1."""


class Model(_Limits):
    """One model of a provider, under the name that the provider knows; its limits count beside the provider's."""

    context_tokens: int | None = Field(default=None, ge=1)
    input_usd_per_million_tokens: Price | None = None
    output_usd_per_million_tokens: Price | None = None
    capabilities: tuple[Capability, ...] = ()

    def cost_usd(self, *, tokens_in: int | None, tokens_out: int | None) -> float | None:
        """The price of one call; None when a price or a count is not known."""
        prices = self.input_usd_per_million_tokens, self.output_usd_per_million_tokens
        if None in prices or tokens_in is None or tokens_out is None:
            return None
        price_in, price_out = (price or 0.0 for price in prices)
        return (tokens_in * price_in + tokens_out * price_out) / 1_000_000


class Provider(_Limits):
    """One account at one server; its limits count for the API key too, should another table use the same one there."""

    dialect: Dialect
    base_url: Annotated[str, AfterValidator(_usable_base_url)]
    api_key_file: str | None = None
    api_key_env: str | None = None
    connect_timeout_seconds: Seconds = 5
    first_token_timeout_seconds: Seconds = 120
    """From the request to the first sign of an answer; without `stream` that is the whole answer."""
    idle_timeout_seconds: Seconds = 30
    """The longest silence once the answer has begun."""
    stream: bool = True
    """Have answers sent while they are made; False for a server that cannot: then only a whole answer is a sign."""
    models: dict[ModelName, Model] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_served(self) -> Self:
        if self.api_key_file is not None and self.api_key_env is not None:
            raise ValueError("give either api_key_file or api_key_env, not both")
        if self.dialect in _NEEDS_KEY and self.api_key_file is None and self.api_key_env is None:
            raise ValueError(f"a provider of dialect {self.dialect} needs api_key_file or api_key_env")
        return self


class Alias(_Table):
    """A name for a choice of models: those listed, then those with the capability, in the file's order."""

    policy: Policy = "priority"
    models: tuple[str, ...] = ()
    capability: Capability | None = None
    cache: bool = False
    """Take an identical deterministic answer of the last hour, also when the command does not ask for that."""
    max_calls: int | None = Field(default=None, ge=1, le=20)
    """Calls of providers that one command may cost; None means the setting `ISH_AI_CALLS_PER_COMMAND`."""

    @model_validator(mode="after")
    def _chooses_something(self) -> Self:
        if not self.models and self.capability is None:
            raise ValueError("models or capability is missing")
        return self


class _File(_Table):
    providers: dict[ProviderName, Provider] = Field(min_length=1)
    aliases: dict[ModelName, Alias] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _aliases_name_models(self) -> Self:
        known = {f"{name}/{model}" for name, provider in self.providers.items() for model in provider.models}
        for alias, choice in self.aliases.items():
            for target in choice.models:
                if target not in known:
                    offered = ", ".join(sorted(known))
                    raise ValueError(f"[aliases.{alias}] models: {target!r} is not one of {offered}")
            if choice.capability is not None and not any(
                choice.capability in model.capabilities
                for provider in self.providers.values()
                for model in provider.models.values()
            ):
                raise ValueError(f"[aliases.{alias}] capability: no model has {choice.capability!r}")
        return self


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one provider: what a call goes to."""

    provider_name: str
    provider: Provider
    model_name: str
    model: Model
    api_key: SecretStr | None

    @property
    def name(self) -> str:
        """`provider/model`."""
        return f"{self.provider_name}/{self.model_name}"

    @property
    def weight(self) -> float:
        """Its share among candidates; 1 unless configured."""
        return self.model.weight or self.provider.weight or 1.0


@dataclass(frozen=True, slots=True)
class Configuration:
    """Every provider, model and alias; empty when nothing is configured."""

    source: str | None = None
    """The file it was read from."""
    targets: tuple[Target, ...] = ()
    """In the file's order."""
    aliases: dict[str, Alias] = field(default_factory=dict)


def load(path: Path, *, secret_from_environment: Callable[[str], str | None]) -> Configuration:
    """Read and check a providers file, keys included.

    Args:
        path: The TOML file.
        secret_from_environment: Reads the variable that an `api_key_env` names.

    Raises:
        ConfigurationError: One line that names the file, the table and the key.
    """
    try:
        content = path.read_text(encoding="utf-8")
        tables = _File.model_validate(tomllib.loads(content))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {_first_fault(error)}") from None
    targets: list[Target] = []
    for name, provider in tables.providers.items():
        try:
            key = _api_key(provider, folder=path.parent, secret_from_environment=secret_from_environment)
        except ValueError as error:
            raise ConfigurationError(f"{path}: [providers.{name}] {error}") from None
        targets += [Target(name, provider, model_name, model, key) for model_name, model in provider.models.items()]
    return Configuration(source=str(path), targets=tuple(targets), aliases=dict(tables.aliases))


def _api_key(
    provider: Provider, *, folder: Path, secret_from_environment: Callable[[str], str | None]
) -> SecretStr | None:
    if provider.api_key_file is not None:
        place = f"api_key_file: {folder / provider.api_key_file}"
        try:
            key = (folder / provider.api_key_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"{place}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            raise ValueError(f"{place}: is not text") from None
    elif provider.api_key_env is not None:
        place = f"api_key_env: {provider.api_key_env}"
        key = (secret_from_environment(provider.api_key_env) or "").strip()
    else:
        return None
    if not key:
        raise ValueError(f"{place} is {'empty' if provider.api_key_file is not None else 'not set'}")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"{place}: the key must be one word of printable ASCII characters")
    try:
        refuse_printed_secret(key)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return SecretStr(key)


def _first_fault(error: ValidationError) -> str:
    """`[providers.zai] base_url: must be …`, from the first of pydantic's faults; values are not repeated."""
    fault = error.errors(include_input=False, include_url=False)[0]
    steps = [str(step) for step in fault["loc"]]
    sentence = rule_of(fault)
    if fault["type"] == "extra_forbidden":
        sentence = "is not a key of this table"
    elif fault["type"] == "missing":
        sentence = "is missing"
    if "[key]" in steps:
        return f"[{'.'.join(steps[: steps.index('[key]')])}] is not a usable name"
    table_depth = _table_depth(steps)
    table, key = steps[:table_depth], ".".join(steps[table_depth:])
    return " ".join(
        part for part in (f"[{'.'.join(table)}]" if table else "", f"{key}:" if key else "", sentence) if part
    )


def _table_depth(steps: list[str]) -> int:
    match steps:
        case ["providers", _, "models", _, *_]:
            return 4
        case ["providers" | "aliases", _, *_]:
            return 2
        case _:
            return 0
