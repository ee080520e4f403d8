"""How the simulated phone's shell reads a command line: words, quotes, variables, redirections, groups and `if`.

What it does not simulate (command substitution, globs, loops, background jobs, comments) is refused as a whole line,
and the device logs that as an effect: a caller that let somebody else's `$(…)` through has a bug, and its test should
see it.

    line     = command { ("&&" | "||" | "|" | ";" | newline) command }
    command  = [ "!" ] ( words | "{" line "}" | "(" line ")" | "if" line "then" line ["else" line] "fi" ) redirections
"""

import re

from ops.simulators.phone.syntax import Command, Group, If, Part, Redirection, Simple, Word

_OPERATORS = ("&&", "||", "|", ";", "\n")
_ENDS_WORD = frozenset(" \t\n;|&<>()")
_NOT_SIMULATED = frozenset("`*?#~{}[]")
_PLAIN_IN_WORD = frozenset("#~")
_WHOLE_WORDS = ("[", "]", "{", "}")
_RESERVED = ("then", "elif", "else", "fi", "}")
_REFUSED_WORDS = ("for", "while", "until", "case", "function", "select", "do", "done", "esac")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*|\?)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_REDIRECTION = re.compile(r"([012]?)(>>|>&|>|<)[ \t]*")
_ESCAPED_IN_QUOTES = '"$`\\'


class SyntaxNotSimulated(Exception):
    """The line uses what this shell does not simulate, or is no shell syntax at all."""


def parse(line: str) -> list[Command]:
    """The commands of a line, in order.

    Raises:
        SyntaxNotSimulated: It uses what is not simulated, or is no shell syntax.
    """
    reader = _Reader(line)
    commands = reader.commands(until=())
    if not reader.at_end():
        raise SyntaxNotSimulated(reader.rest())
    return commands


class _Reader:
    """Reads one line from left to right."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._position = 0

    def at_end(self) -> bool:
        return self._position >= len(self._line)

    def rest(self) -> str:
        return self._line[self._position :]

    def commands(self, *, until: tuple[str, ...]) -> list[Command]:
        """Commands up to the end, or up to one of the words, which is left to be read."""
        found: list[Command] = []
        operator = ";"
        while True:
            self._skip(" \t\n" if operator != "|" else " \t")
            if self.at_end() or self._next_is(until):
                break
            command = self._command()
            command.operator = operator
            found.append(command)
            self._skip(" \t")
            operator = self._operator()
            if not operator:
                break
            operator = ";" if operator == "\n" else operator
        if operator in ("&&", "||", "|"):
            raise SyntaxNotSimulated(f"nothing follows {operator}")
        return found

    def _operator(self) -> str:
        operator = next((each for each in _OPERATORS if self._line.startswith(each, self._position)), "")
        self._position += len(operator)
        return operator

    def _command(self) -> Command:
        negated = self._take("!")
        self._skip(" \t")
        command: Command
        if self._take("if"):
            command = self._if()
        elif self._take("{"):
            command = Group(commands=self._block(("}",)), subshell=False)
            self._expect("}")
        elif self._line.startswith("(", self._position):
            self._position += 1
            command = Group(commands=self._block((")",)), subshell=True)
            self._expect(")")
        else:
            command = self._simple()
        command.negated = negated
        self._read_redirections(command)
        return command

    def _if(self) -> If:
        branches = []
        while True:
            condition = self._block(("then",))
            self._expect("then")
            branches.append((condition, self._block(("elif", "else", "fi"))))
            if not self._take("elif"):
                break
        otherwise = self._block(("fi",)) if self._take("else") else []
        self._expect("fi")
        return If(branches=branches, otherwise=otherwise)

    def _block(self, until: tuple[str, ...]) -> list[Command]:
        commands = self.commands(until=until)
        if not commands:
            raise SyntaxNotSimulated(f"nothing stands before {' or '.join(until)}")
        return commands

    def _simple(self) -> Simple:
        command = Simple()
        while True:
            self._skip(" \t")
            if self._read_redirection(command):
                continue
            if self.at_end() or self._line[self._position] in _ENDS_WORD:
                break
            start = self._position
            word = self._word()
            self._add(command, word, raw=self._line[start : self._position])
        if not (command.words or command.assignments or command.redirections):
            raise SyntaxNotSimulated(self.rest() or "nothing")
        return command

    def _add(self, command: Simple, word: Word, *, raw: str) -> None:
        name, equals, _ = raw.partition("=")
        if not command.words and equals and name.isidentifier() and name.isascii():
            first = Part(word[0].text[len(name) + 1 :], word[0].quoted, word[0].is_variable)
            command.assignments.append((name, (first, *word[1:])))
            return
        if not command.words and (raw in _REFUSED_WORDS or raw in _RESERVED):
            raise SyntaxNotSimulated(raw)
        command.words.append(word)

    def _read_redirections(self, command: Command) -> None:
        self._skip(" \t")
        while self._read_redirection(command):
            self._skip(" \t")

    def _read_redirection(self, command: Command) -> bool:
        match = _REDIRECTION.match(self._line, self._position)
        if match is None:
            return False
        self._position = match.end()
        if self.at_end() or self._line[self._position] in _ENDS_WORD:
            raise SyntaxNotSimulated(match[0])
        stream = int(match[1]) if match[1] else int(match[2] != "<")
        command.redirections.append(Redirection(stream, match[2], self._word()))
        return True

    def _word(self) -> Word:
        start = self._position
        whole = next((each for each in _WHOLE_WORDS if self._next_is((each,))), None)
        if whole is not None:
            self._position += len(whole)
            return (Part(whole, quoted=False),)
        parts: list[Part] = []
        while not self.at_end() and self._line[self._position] not in _ENDS_WORD:
            character = self._line[self._position]
            if character == "'":
                parts.append(self._single_quoted())
            elif character == '"':
                parts.extend(self._double_quoted())
            elif character == "$":
                parts.append(self._variable(quoted=False))
            elif character == "\\" and self._position + 1 < len(self._line):
                parts.append(Part(self._line[self._position + 1].replace("\n", ""), quoted=True))
                self._position += 2
            elif character in _NOT_SIMULATED and not (self._position > start and character in _PLAIN_IN_WORD):
                raise SyntaxNotSimulated(character)
            else:
                parts.append(Part(character, quoted=False))
                self._position += 1
        return _joined(parts)

    def _single_quoted(self) -> Part:
        end = self._line.find("'", self._position + 1)
        if end < 0:
            raise SyntaxNotSimulated("a quote is left open")
        content = self._line[self._position + 1 : end]
        self._position = end + 1
        return Part(content, quoted=True)

    def _double_quoted(self) -> list[Part]:
        parts = [Part("", quoted=True)]
        self._position += 1
        while True:
            if self.at_end():
                raise SyntaxNotSimulated("a quote is left open")
            character = self._line[self._position]
            if character == '"':
                self._position += 1
                return parts
            if character == "$":
                parts.append(self._variable(quoted=True))
                continue
            if character == "`":
                raise SyntaxNotSimulated(character)
            if character == "\\" and self._line[self._position + 1 : self._position + 2] in tuple(_ESCAPED_IN_QUOTES):
                self._position += 1
                character = self._line[self._position]
            parts.append(Part(character, quoted=True))
            self._position += 1

    def _variable(self, *, quoted: bool) -> Part:
        match = _VARIABLE.match(self._line, self._position)
        if match is None:
            raise SyntaxNotSimulated(self._line[self._position : self._position + 2])
        self._position = match.end()
        return Part(match[1] or match[2], quoted=quoted, is_variable=True)

    def _skip(self, characters: str) -> None:
        while not self.at_end() and self._line[self._position] in characters:
            self._position += 1

    def _next_is(self, words: tuple[str, ...]) -> bool:
        for word in words:
            end = self._position + len(word)
            if self._line.startswith(word, self._position) and (
                word == ")" or end >= len(self._line) or self._line[end] in _ENDS_WORD
            ):
                return True
        return False

    def _take(self, word: str) -> bool:
        if not self._next_is((word,)):
            return False
        self._position += len(word)
        return True

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise SyntaxNotSimulated(f"{word} is missing")


def _joined(parts: list[Part]) -> Word:
    """Neighbouring pieces of the same kind as one."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if last is not None and not (last.is_variable or part.is_variable) and last.quoted == part.quoted:
            joined[-1] = Part(last.text + part.text, part.quoted)
        else:
            joined.append(part)
    return tuple(joined)
