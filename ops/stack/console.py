"""What the stack says at the terminal: steps with progress, notes, and the processes' log lines."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.text import Text

from contracts.plain_text import plain
from ops.cli.terminal import print_table

_COLOURS = ("cyan", "green", "magenta", "blue", "yellow")


class Console:
    """Writes to standard output; colours and a moving step only in a terminal."""

    def __init__(self) -> None:
        self._out = RichConsole(highlight=False, soft_wrap=True)
        self._colours: dict[str, str] = {}

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table that keeps within the terminal's width.

        Args:
            headers: One per column.
            rows: A value per column; None is an empty cell.
        """
        print_table(headers, rows)

    def say(self, sentence: str) -> None:
        """One line of the stack itself.

        Args:
            sentence: Plain text.
        """
        self._out.print(Text(plain(sentence, lines=True)))

    @contextmanager
    def step(self, sentence: str) -> Iterator[None]:
        """Something that may take longer than a second.

        Args:
            sentence: What is being done.
        """
        if self._out.is_terminal:
            with self._out.status(Text(plain(sentence))):
                yield
        else:
            self.say(f"{sentence} ...")
            yield

    def line(self, name: str, text: str) -> None:
        """One log line of a process.

        Args:
            name: The process.
            text: The line.
        """
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        self._out.print(Text.assemble((f"{name:<10} ", colour), plain(text)))
