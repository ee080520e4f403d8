"""Decides which targets a question may go to, in the order in which they would be tried."""

from contracts.errors import ErrorCode, Permanent
from workers.ai.configuration import Configuration, Target

DEFAULT_ALIAS = "default"


def candidates(configuration: Configuration, *, model: str | None, provider: str | None) -> tuple[Target, ...]:
    """The targets for a question, best first; never empty.

    A `model` is, in this order: an alias, `provider/model`, or the name of a model (at the first provider that has it).
    With `provider`, only that provider's targets count. Today the first candidate is asked; failing over to the others
    needs nothing but this order.

    Args:
        configuration: What there is.
        model: What the command asked for; None means the alias `default`, or without one the first model there is.
        provider: The only provider to ask; None means any.

    Raises:
        Permanent: Nothing is configured, or nothing fits.
    """
    if not configuration.targets:
        raise Permanent(
            ErrorCode.PROVIDER_NOT_CONFIGURED,
            "no AI provider is configured: set ISH_PROVIDERS_FILE to a TOML file with a [providers.NAME] table "
            "(dialect, base_url, api_key_file) and a [providers.NAME.models.MODEL] table",
        )
    offered = [target for target in configuration.targets if provider in {None, target.provider_name}]
    if not offered:
        names = ", ".join(dict.fromkeys(target.provider_name for target in configuration.targets))
        raise Permanent(
            ErrorCode.PROVIDER_NOT_CONFIGURED, f"provider {provider} is not configured; configured: {names}"
        )
    found = _named(configuration, offered, model=model, any_provider=provider is None)
    if not found:
        names = ", ".join(target.name for target in offered)
        raise Permanent(ErrorCode.MODEL_NOT_FOUND, f"model {model} is not configured; configured: {names}")
    return tuple(found)


def _named(
    configuration: Configuration, offered: list[Target], *, model: str | None, any_provider: bool
) -> list[Target]:
    name = model or DEFAULT_ALIAS
    if (alias := configuration.aliases.get(name)) is not None:
        by_name = {target.name: target for target in offered}
        found = [by_name[choice] for choice in alias.models if choice in by_name]
        if found or any_provider:
            return found
    if model is None:
        return offered[:1]
    return [target for target in offered if target.name == model] or [
        target for target in offered if target.model_name == model
    ]
