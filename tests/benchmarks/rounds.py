"""Alternating rounds (A B A B ...) and what is made of them: median, spread, ratios."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

OURS = "ISH Chat"


@dataclass(frozen=True, slots=True)
class Round:
    """One contender's figures in one round."""

    figures: Mapping[str, float]
    """By name with unit, `req/s` or `p99 ms`; the first is the one whose spread is shown."""
    cpu_microseconds: Mapping[str, float]
    """Processor time per message of each process tree."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to measure."""

    name: str
    keeps: str
    """What survives a crash, and of what: the reader must see what a rate was bought with."""
    run: Callable[[], Round]
    minor: bool = False
    """Left out of a quick run."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All rounds of one contender."""

    name: str
    keeps: str
    rounds: Sequence[Round]

    def middle(self, figure: str) -> float:
        """The median of one figure.

        Args:
            figure: Its name.
        """
        return median(one.figures[figure] for one in self.rounds)

    def spread(self, figure: str) -> tuple[float, float]:
        """Least and greatest of one figure.

        Args:
            figure: Its name.
        """
        values = [one.figures[figure] for one in self.rounds]
        return min(values), max(values)

    def cpu(self) -> dict[str, float]:
        """The median of each process tree's time per message, in microseconds."""
        return {
            name: median(one.cpu_microseconds[name] for one in self.rounds) for name in self.rounds[0].cpu_microseconds
        }


@dataclass(frozen=True, slots=True)
class Claim:
    """One figure with what it was hoped to be."""

    sentence: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether this run bears it out."""
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """One benchmark's results."""

    title: str
    method: str
    measured: Sequence[Measured]
    claims: Sequence[Claim]


@dataclass(frozen=True, slots=True)
class Turns:
    """How a run goes about it."""

    rounds: int
    quick: bool
    say: Callable[[str], None]
    """Told of each round."""

    def alternate(self, *contenders: Contender) -> dict[str, Measured]:
        """Run every contender once, then all again: drift of the machine meets all of them alike.

        Args:
            contenders: In the order of their turns.

        Returns:
            What was measured, by the contender's name.
        """
        taking_part = [contender for contender in contenders if not (self.quick and contender.minor)]
        found: dict[str, list[Round]] = {contender.name: [] for contender in taking_part}
        for number in range(1, self.rounds + 1):
            for contender in taking_part:
                one = contender.run()
                found[contender.name].append(one)
                figures = ", ".join(f"{value:,.1f} {name}" for name, value in one.figures.items())
                self.say(f"  round {number} of {self.rounds}: {contender.name}: {figures}")
        return {one.name: Measured(one.name, one.keeps, found[one.name]) for one in taking_part}


def ratio(
    measured: Mapping[str, Measured],
    figure: str,
    name: str,
    *,
    to: str,
    at_least: float | None = None,
    at_most: float | None = None,
) -> list[Claim]:
    """A contender's figure as a multiple of another's, if both took part.

    Args:
        measured: By name.
        figure: Which.
        name: The contender.
        to: The other.
        at_least: What was hoped for.
        at_most: What was hoped for.
    """
    if to not in measured:
        return []
    value = measured[name].middle(figure) / measured[to].middle(figure)
    return [Claim(f"{figure}: {name} / {to}", value, at_least, at_most)]
