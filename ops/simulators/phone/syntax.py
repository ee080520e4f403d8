"""What a command line of the simulated phone's shell consists of once it is read: words, redirections and commands."""

from dataclasses import dataclass, field

from typing_extensions import override


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a word: text, or a variable's name."""

    text: str
    quoted: bool
    is_variable: bool = False


Word = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Redirection:
    """Where one of a command's streams goes or comes from."""

    stream: int
    """0 is input, 1 is output, 2 is error output."""
    kind: str
    """`<`, `>`, `>>`, or `>&` for the stream whose number is the target."""
    target: Word


@dataclass(slots=True, kw_only=True)
class Command:
    """What every command has; its kinds are the classes below."""

    operator: str = ";"
    """What stands before it: `;`, `&&`, `||` or `|`; the first command has `;`."""
    negated: bool = False
    redirections: list[Redirection] = field(default_factory=list)

    @property
    def argv(self) -> list[str]:
        """The words of a program, as they stand; none for other commands."""
        return []


@dataclass(slots=True, kw_only=True)
class Simple(Command):
    """One program with its arguments."""

    assignments: list[tuple[str, Word]] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)

    @property
    @override
    def argv(self) -> list[str]:
        """The words, a variable written as `$name`."""
        return ["".join(f"${part.text}" if part.is_variable else part.text for part in word) for word in self.words]


@dataclass(slots=True, kw_only=True)
class Group(Command):
    """Commands in `{ }`, or in `( )`, where `exit` ends only them and variables do not get out."""

    commands: list[Command]
    subshell: bool


@dataclass(slots=True, kw_only=True)
class If(Command):
    """Pairs of a condition and what runs when it holds, then what runs when none does."""

    branches: list[tuple[list[Command], list[Command]]]
    otherwise: list[Command]
