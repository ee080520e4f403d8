"""Puts the targets of a choice in order, by its policy; the first is asked, the others stand by in that order.

priority   as the file lists them.
weighted   smooth weighted round robin: each target's share is its weight, evenly spread.
fastest    two are drawn by lot, and the one with the lower cost leads: seconds expected x (calls in flight + 1) / weight.
cheapest   by the price of the tokens expected; those without a price come last.
balanced   half of the latency, three tenths of the price, two tenths of the load, each against the worst candidate's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from workers.ai.configuration import Policy, Target
from workers.ai.routing.latency import Latencies

_LATENCY_SHARE, _PRICE_SHARE, _LOAD_SHARE = 0.5, 0.3, 0.2
_USUAL_PLACES = 10
"""Taken for a target without an in-flight limit."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target, and why it stands at its place."""

    target: Target
    score: float | None
    """What the policy compared; lower is better, but under `weighted`, where the highest is next. None: nothing was."""
    reason: str
    """For people."""


class Policies:
    """Every policy, with what they remember from one decision to the next.

    Args:
        latencies: What is known about latency and calls in flight.
        random: Draws lots.
    """

    def __init__(self, latencies: Latencies, random: Random) -> None:
        self._latencies = latencies
        self._random = random
        self._turns: dict[tuple[str, ...], dict[str, float]] = {}

    def order(
        self, policy: Policy, targets: Sequence[Target], *, tokens_in: int, tokens_out: int, again: bool
    ) -> list[Candidate]:
        """The targets, best first.

        Args:
            policy: Which.
            targets: In the file's order; at least one.
            tokens_in: Tokens of the question, as far as known.
            tokens_out: Tokens expected of the answer.
            again: It is the same command's second choice: it takes no turn from others.
        """
        match policy:
            case "priority":
                return [Candidate(target, None, f"priority {place}") for place, target in enumerate(targets, start=1)]
            case "weighted":
                return self._weighted(targets, take_turn=not again)
            case "fastest":
                return self._fastest(targets, tokens_out)
            case "cheapest":
                return self._cheapest(targets, tokens_in, tokens_out)
            case "balanced":
                return self._balanced(targets, tokens_in, tokens_out)

    def _weighted(self, targets: Sequence[Target], *, take_turn: bool) -> list[Candidate]:
        """Nginx's smooth weighted round robin: each gains its weight, the highest leads and pays the sum of all."""
        names = tuple(target.name for target in targets)
        owed = self._turns.get(names, {})
        total = sum(target.weight for target in targets)
        gained = {target.name: owed.get(target.name, 0.0) + target.weight for target in targets}
        ordered = sorted(targets, key=lambda target: -gained[target.name])
        if take_turn:
            self._turns[names] = {**gained, ordered[0].name: gained[ordered[0].name] - total}
        return [
            Candidate(
                target, gained[target.name], f"weight {target.weight:g} of {total:g}, credit {gained[target.name]:g}"
            )
            for target in ordered
        ]

    def _fastest(self, targets: Sequence[Target], tokens_out: int) -> list[Candidate]:
        seconds = self._latencies.seconds([target.name for target in targets], tokens_out=tokens_out)
        candidates: list[Candidate] = []
        for target in self._random.sample(targets, len(targets)):  # equal costs are drawn by lot, too
            expected, in_flight = seconds[target.name], self._latencies.in_flight(target.name)
            cost = expected * (in_flight + 1) / target.weight
            candidates.append(
                Candidate(
                    target, cost, f"{expected:.2f} s expected for {tokens_out} tokens, {in_flight} in flight here"
                )
            )
        drawn = min(candidates[:2], key=_score)
        return [drawn, *sorted((one for one in candidates if one is not drawn), key=_score)]

    def _cheapest(self, targets: Sequence[Target], tokens_in: int, tokens_out: int) -> list[Candidate]:
        candidates: list[Candidate] = []
        for target in targets:
            cost = target.model.cost_usd(tokens_in=tokens_in, tokens_out=tokens_out)
            said = "price unknown" if cost is None else f"{cost:.6f} USD for {tokens_in} tokens in and {tokens_out} out"
            candidates.append(Candidate(target, cost, said))
        return sorted(candidates, key=lambda one: float("inf") if one.score is None else one.score)

    def _balanced(self, targets: Sequence[Target], tokens_in: int, tokens_out: int) -> list[Candidate]:
        seconds = self._latencies.seconds([target.name for target in targets], tokens_out=tokens_out)
        known = {target.name: target.model.cost_usd(tokens_in=tokens_in, tokens_out=tokens_out) for target in targets}
        dearest = max((cost for cost in known.values() if cost is not None), default=0.0)
        costs = {name: dearest if cost is None else cost for name, cost in known.items()}
        loads = {target.name: self._load(target) for target in targets}
        slowest, fullest = max(seconds.values()), max(loads.values())
        candidates = [
            Candidate(
                target,
                _LATENCY_SHARE * _part(seconds[target.name], slowest)
                + _PRICE_SHARE * _part(costs[target.name], dearest)
                + _LOAD_SHARE * _part(loads[target.name], fullest),
                f"{seconds[target.name]:.2f} s expected, "
                + ("price unknown" if known[target.name] is None else f"{costs[target.name]:.6f} USD")
                + f", {self._latencies.in_flight(target.name)} in flight here",
            )
            for target in self._random.sample(targets, len(targets))
        ]
        return sorted(candidates, key=_score)

    def _load(self, target: Target) -> float:
        """Calls in flight for each of its places."""
        places = target.model.max_in_flight or target.provider.max_in_flight or _USUAL_PLACES * target.weight
        return self._latencies.in_flight(target.name) / places


def _score(candidate: Candidate) -> float:
    return candidate.score or 0.0


def _part(value: float, worst: float) -> float:
    return value / worst if worst > 0 else 0.0
