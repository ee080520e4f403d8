"""How the simulated phone's shell reads a command line: words, quotes, assignments, and the operators between commands.

Expansion and redirection are not simulated. A line that asks for them is refused as a whole, and the device logs
that as an effect: a caller that let somebody else's `$(…)` through has a bug, and its test should see it.
"""

from dataclasses import dataclass, field

_OPERATORS = ("&&", "||", "|", ";", "\n")
_ENDS_WORD = (" ", "\t", "\n", ";", "|", "&&")
_NOT_SIMULATED = frozenset("$`&<>(){}*?[]!#~")
_PLAIN_IN_WORD = frozenset("!#~")


class SyntaxNotSimulated(Exception):
    """The line uses what this shell does not simulate, or is no shell syntax at all."""


@dataclass(slots=True)
class SimpleCommand:
    """One program with its arguments."""

    operator: str
    """What stands before it: `;`, `&&`, `||` or `|`; the first command has `;`."""
    assignments: dict[str, str] = field(default_factory=dict)
    argv: list[str] = field(default_factory=list)


def parse(line: str) -> list[SimpleCommand]:
    """The commands of a line, in order.

    Raises:
        SyntaxNotSimulated: It cannot be read without expansion or redirection.
    """
    commands = [SimpleCommand(";")]
    position = 0
    while position < len(line):
        operator = next((each for each in _OPERATORS if line.startswith(each, position)), None)
        if operator is not None:
            commands.append(SimpleCommand(";" if operator == "\n" else operator))
            position += len(operator)
        elif line[position] in " \t":
            position += 1
        else:
            word, end = _read_word(line, position)
            _add_word(commands[-1], word, raw=line[position:end])
            position = end
    return [command for command in commands if command.argv or command.assignments]


def _add_word(command: SimpleCommand, word: str, *, raw: str) -> None:
    name, equals, value = word.partition("=")
    if not command.argv and equals and raw.startswith(name + "=") and name.isidentifier():
        command.assignments[name] = value
    else:
        command.argv.append(word)


def _read_word(line: str, start: int) -> tuple[str, int]:
    word: list[str] = []
    position = start
    while position < len(line):
        character = line[position]
        if line.startswith(_ENDS_WORD, position):
            break
        if character == "'":
            content, position = _until(line, "'", position + 1)
            word.append(content)
        elif character == '"':
            content, position = _until(line, '"', position + 1)
            if any(special in content for special in "$`\\"):
                raise SyntaxNotSimulated(f'"{content}"')
            word.append(content)
        elif character == "\\" and position + 1 < len(line):
            word.append(line[position + 1])
            position += 2
        elif character in _NOT_SIMULATED and not (position > start and character in _PLAIN_IN_WORD):
            raise SyntaxNotSimulated(character)
        else:
            word.append(character)
            position += 1
    return "".join(word), position


def _until(line: str, quote: str, start: int) -> tuple[str, int]:
    end = line.find(quote, start)
    if end < 0:
        raise SyntaxNotSimulated("a quote is left open")
    return line[start:end], end + 1
