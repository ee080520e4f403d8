"""Decides which targets a question may go to, in the order in which they would be tried, and why."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Any

from contracts.errors import ErrorCode, Permanent
from workers.ai.configuration import Alias, Configuration, Policy, Target
from workers.ai.routing.latency import Call, Latencies
from workers.ai.routing.policies import Candidate, Policies

__all__ = ["DEFAULT_ALIAS", "Call", "Candidate", "Exhausted", "Route", "Router"]

DEFAULT_ALIAS = "default"


class Exhausted(Permanent):
    """Every candidate was tried in this run."""


@dataclass(frozen=True, slots=True)
class Route:
    """One routing decision."""

    policy: str
    alias: str | None
    """None when the command named a model itself."""
    candidates: tuple[Candidate, ...]
    """Best first; never empty."""
    left_out: tuple[Candidate, ...] = ()
    """Of the same choice, but not to be tried for this question."""

    def explain(self) -> dict[str, Any]:
        """JSON-ready: `policy`, `alias`, `candidates` and `left_out`, each of these with `target`, `score`, `reason`."""
        return {
            "policy": self.policy,
            "alias": self.alias,
            "candidates": [_said(one) for one in self.candidates],
            "left_out": [_said(one) for one in self.left_out],
        }


@dataclass(frozen=True, slots=True)
class _Choice:
    """The targets that a command's words mean."""

    targets: Sequence[Target]
    alias: str | None = None
    policy: Policy = "priority"


class Router:
    """Chooses targets; one per process, since turns and latencies are remembered from one question to the next.

    Args:
        clock: Seconds that only grow.
        random: Draws lots.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic, random: Random | None = None) -> None:
        self._latencies = Latencies(clock)
        self._policies = Policies(self._latencies, random or Random())

    def begin(self, target: Target) -> Call:
        """A call goes out; its pieces and its end are to be told to what is returned.

        Args:
            target: Where it goes to.
        """
        return self._latencies.begin(target.name)

    def route(
        self,
        configuration: Configuration,
        *,
        model: str | None,
        provider: str | None,
        capabilities: Collection[str] | None = None,
        tokens_in: int,
        tokens_out: int,
        exclude: Collection[str] = (),
    ) -> Route:
        """The targets for a question.

        A `model` is, in this order: an alias, `provider/model`, or the name of a model (at each provider that has it).
        With `provider`, only that provider's targets count.

        Args:
            configuration: What there is.
            model: What the command asked for; None means the alias `default`, or without one the first model there is.
            provider: The only provider to ask; None means any.
            capabilities: What the model must be able to do.
            tokens_in: Tokens of the question.
            tokens_out: Tokens expected of the answer.
            exclude: Names of targets that were tried in this run.

        Raises:
            Exhausted: There are targets, but `exclude` names them all.
            Permanent: Nothing is configured, or nothing fits.
        """
        choice = _choose(configuration, model=model, provider=provider, capabilities=frozenset(capabilities or ()))
        usable, too_small = _by_context(choice.targets, needed=tokens_in + tokens_out)
        usable = [target for target in usable if target.name not in exclude]
        if not usable:
            raise Exhausted(ErrorCode.NO_CAPACITY, "every model that this command may use was tried in this run")
        ordered = self._policies.order(
            choice.policy, usable, tokens_in=tokens_in, tokens_out=tokens_out, again=bool(exclude)
        )
        for passed in ordered[1:]:
            self._latencies.passed_over(passed.target.name)
        return Route(choice.policy, choice.alias, tuple(ordered), tuple(too_small))

    def larger(
        self,
        configuration: Configuration,
        target: Target,
        *,
        needed_tokens: int,
        alias: str | None = None,
        provider: str | None = None,
        capabilities: Collection[str] | None = None,
        exclude: Collection[str] = (),
    ) -> tuple[Target, ...]:
        """Targets for a question that proved too long for one; may be empty.

        They are known to hold more: first those of the alias, then of the same provider, then of any.

        Args:
            configuration: What there is.
            target: It was too small.
            needed_tokens: Question and answer, as estimated.
            alias: The route's; None for none.
            provider: The only provider to ask; None means any.
            capabilities: What the model must be able to do.
            exclude: Names of targets that were tried in this run.
        """
        own_context = target.model.context_tokens
        needed = max(needed_tokens, (own_context or 0) + 1)
        wanted = frozenset(capabilities or ())
        choice = configuration.aliases.get(alias) if alias is not None else None
        preferred = [] if choice is None else _members(choice, configuration.targets)
        same_provider = [one for one in configuration.targets if one.provider_name == target.provider_name]
        fitting = {
            one.name: one
            for one in (*preferred, *same_provider, *configuration.targets)
            if (one.model.context_tokens or 0) >= needed
            and provider in {None, one.provider_name}
            and wanted.issubset(one.model.capabilities)
            and one.name != target.name
            and one.name not in exclude
        }
        return tuple(fitting.values())


def _choose(
    configuration: Configuration, *, model: str | None, provider: str | None, capabilities: frozenset[str]
) -> _Choice:
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
    choice = _named(configuration, offered, model=model, any_provider=provider is None)
    if not choice.targets:
        raise Permanent(ErrorCode.MODEL_NOT_FOUND, f"model {model} is not configured; configured: {_names(offered)}")
    able = _able(choice.targets, capabilities)
    if able:
        return _Choice(able, choice.alias, choice.policy)
    if model is None and (elsewhere := _able(offered, capabilities)):
        return _Choice(elsewhere)
    wanted = ", ".join(sorted(capabilities))
    raise Permanent(
        ErrorCode.MODEL_NOT_FOUND, f"none of {_names(choice.targets)} is configured with the capabilities {wanted}"
    )


def _named(
    configuration: Configuration, offered: Sequence[Target], *, model: str | None, any_provider: bool
) -> _Choice:
    name = model or DEFAULT_ALIAS
    if (alias := configuration.aliases.get(name)) is not None:
        found = _members(alias, offered)
        if found or any_provider:
            return _Choice(found, name, alias.policy)
    if model is None:
        return _Choice(offered[:1])
    return _Choice(
        [target for target in offered if target.name == model]
        or [target for target in offered if target.model_name == model]
    )


def _members(alias: Alias, offered: Iterable[Target]) -> list[Target]:
    by_name = {target.name: target for target in offered}
    listed = [by_name[name] for name in alias.models if name in by_name]
    capable = [target for target in by_name.values() if alias.capability in target.model.capabilities]
    return list({target.name: target for target in (*listed, *capable)}.values())


def _able(targets: Iterable[Target], capabilities: frozenset[str]) -> list[Target]:
    return [target for target in targets if capabilities.issubset(target.model.capabilities)]


def _by_context(targets: Sequence[Target], *, needed: int) -> tuple[list[Target], list[Candidate]]:
    """Those that can hold so many tokens, as far as is known, and the others; when none can, all, largest first."""
    large: list[Target] = []
    small: list[Candidate] = []
    for target in targets:
        context = target.model.context_tokens
        if context is None or context >= needed:
            large.append(target)
        else:
            small.append(Candidate(target, None, f"its context of {context} tokens is too small for about {needed}"))
    if large:
        return large, small
    return sorted(targets, key=lambda target: -(target.model.context_tokens or 0)), []


def _names(targets: Iterable[Target]) -> str:
    return ", ".join(target.name for target in targets)


def _said(candidate: Candidate) -> dict[str, Any]:
    return {"target": candidate.target.name, "score": candidate.score, "reason": candidate.reason}
