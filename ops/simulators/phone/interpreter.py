"""Runs a command line on the simulated phone as its shell would: expansion, streams, `&&`, `||`, `|`, `if` and exit codes."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ops.simulators.phone import sh
from ops.simulators.phone.device import Device
from ops.simulators.phone.effects import MARKER_VARIABLE
from ops.simulators.phone.files import FileError
from ops.simulators.phone.programs import PROGRAMS
from ops.simulators.phone.programs.call import Call
from ops.simulators.phone.programs.filesystem import write_file
from ops.simulators.phone.programs.readiness import refused_while_booting
from ops.simulators.phone.streams import Captured, Discarded, Sink, Source
from ops.simulators.phone.syntax import Command, Group, If, Redirection, Simple, Word

_SYNTAX_ERROR = 2
_NOT_FOUND = 127
_JAVA_PROGRAMS = frozenset({"am", "cmd", "ime", "input", "monkey", "pm", "settings", "uiautomator", "wm"})
_VENDORS_TRACE = (
    b"java.lang.ClassNotFoundException: com.vendor.performance.Booster\n"
    b"\tat java.lang.Class.classForName(Native Method)\n\tat com.android.internal.os.RuntimeInit.main(RuntimeInit.java:9)\n"
)
_SECONDS = {
    "am": 0.4,
    "cmd": 0.1,
    "ime": 0.2,
    "input": 0.5,
    "monkey": 1.5,
    "pm": 0.5,
    "screencap": 0.6,
    "settings": 0.1,
}
"""What programs take on a phone, but for those that take as long as what they do."""
_OUTPUT = 1
_ERRORS = 2


class _Exit(Exception):
    """The shell ends."""

    def __init__(self, code: int) -> None:
        self.code = code


async def run(device: Device, line: str, *, stdin: Source, out: Sink, err: Sink) -> int:
    """Run a command line as the phone's shell would.

    Args:
        device: Whose shell it is.
        line: As it was given to the shell.
        stdin: Its input.
        out: Takes its output.
        err: Takes its error output.

    Returns:
        The exit code, 0 to 255.
    """
    device.running += 1
    try:
        exit_code = await _run_line(device, line, _Streams(stdin, out, err))
        if device.behaviour.latency_seconds:
            await asyncio.sleep(device.behaviour.latency_seconds)
        return exit_code
    finally:
        device.running -= 1


@dataclass(frozen=True, slots=True)
class _Streams:
    """Where a command reads and writes."""

    stdin: Source
    out: Sink
    err: Sink


@dataclass(slots=True)
class _Shell:
    """One shell, or a subshell."""

    device: Device
    variables: dict[str, str] = field(default_factory=dict)
    exit_code: int = 0

    async def run(self, commands: Sequence[Command], streams: _Streams) -> int:
        """Run commands in order; returns the exit code of the last one that ran."""
        skipping = False
        piped = streams.stdin
        for place, command in enumerate(commands):
            if command.operator != "|":
                skipping = (command.operator == "&&" and self.exit_code != 0) or (
                    command.operator == "||" and self.exit_code == 0
                )
                piped = streams.stdin
            if skipping:
                continue
            feeds_next = place + 1 < len(commands) and commands[place + 1].operator == "|"
            captured = Captured()
            own = replace(streams, stdin=piped, out=captured if feeds_next else streams.out)
            self.exit_code = await self._run_redirected(command, own)
            if command.negated:
                self.exit_code = int(self.exit_code == 0)
            piped = Source(bytes(captured.content))
        return self.exit_code

    async def _run_redirected(self, command: Command, streams: _Streams) -> int:
        """Run a command with its redirections; what goes to a file is written when the command is over."""
        written: list[tuple[str, Captured, bool]] = []
        for redirection in command.redirections:
            path = " ".join(self._expand([redirection.target]))
            try:
                streams = self._redirect(redirection, path, streams, written)
            except FileError as error:
                verb = "open" if redirection.kind == "<" else "create"
                streams.err.write(f"/system/bin/sh: can't {verb} {path}: {error}\n".encode())
                return 1
        try:
            exit_code = await self._run_command(command, streams)
        except _Exit:
            self._write(written, streams)
            raise
        return exit_code if self._write(written, streams) else 1

    def _redirect(
        self, redirection: Redirection, path: str, streams: _Streams, written: list[tuple[str, Captured, bool]]
    ) -> _Streams:
        if redirection.kind == "<":
            content = self.device.files.read(path)
            chunks = content.chunks()

            async def more() -> bytes:
                return next(chunks, b"")

            return replace(streams, stdin=Source(more=more))
        if redirection.kind == ">&":
            if path not in ("1", "2"):
                raise FileError("bad file descriptor")
            sink = streams.out if path == "1" else streams.err
        elif self.device.files.check_writable(path) == "/dev/null":
            sink = Discarded()
        else:
            captured = Captured()
            written.append((path, captured, redirection.kind == ">>"))
            sink = captured
        return replace(streams, out=sink) if redirection.stream == _OUTPUT else replace(streams, err=sink)

    def _write(self, written: Sequence[tuple[str, Captured, bool]], streams: _Streams) -> bool:
        """Write what went to files; whether all of it could be."""
        for path, captured, appends in written:
            call = Call(self.device, ["sh", ">", path], streams.stdin, streams.out, streams.err, self._marker())
            try:
                write_file(call, path, bytes(captured.content), append=appends)
            except FileError as error:
                call.fail(f"/system/bin/sh: can't create {path}: {error}")
                return False
        return True

    async def _run_command(self, command: Command, streams: _Streams) -> int:
        match command:
            case Simple():
                return await self._run_simple(command, streams)
            case Group():
                return await self._run_group(command, streams)
            case If():
                for condition, body in command.branches:
                    if await self.run(condition, streams) == 0:
                        return await self.run(body, streams)
                return await self.run(command.otherwise, streams) if command.otherwise else 0
            case _:
                raise TypeError(f"{type(command).__name__} is no command of a shell")

    async def _run_group(self, group: Group, streams: _Streams) -> int:
        if not group.subshell:
            return await self.run(group.commands, streams)
        inner = _Shell(self.device, dict(self.variables), self.exit_code)
        try:
            return await inner.run(group.commands, streams)
        except _Exit as ended:
            return ended.code

    async def _run_simple(self, command: Simple, streams: _Streams) -> int:
        argv = self._expand(command.words)
        assigned = {name: " ".join(self._expand([value])) for name, value in command.assignments}
        if not argv:
            self.variables |= assigned
            return 0
        match argv:
            case ["exit", *rest]:
                raise _Exit(int(rest[0]) & 0xFF if rest and rest[0].isdigit() else self.exit_code)
            case ["exec", *program] if program:
                raise _Exit(await self._run_program(program, assigned.get(MARKER_VARIABLE), streams))
            case ["export", *pairs]:
                self.variables |= {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
                return 0
            case ["read", *names]:
                return await self._read([name for name in names if name != "-r"], streams)
            case _:
                return await self._run_program(argv, assigned.get(MARKER_VARIABLE), streams)

    async def _run_program(self, argv: Sequence[str], marker: str | None, streams: _Streams) -> int:
        program = PROGRAMS.get(argv[0].removeprefix("/system/bin/"))
        if program is None:
            streams.err.write(f"/system/bin/sh: {argv[0]}: inaccessible or not found\n".encode())
            return _NOT_FOUND
        call = Call(self.device, argv, streams.stdin, streams.out, streams.err, marker or self._marker())
        try:
            self.device.follow_behaviour()
            refused = refused_while_booting(call) if self.device.behaviour.boot == "booting" else None
            if refused is not None:
                return refused
            if self.device.behaviour.vendor_noise and argv[0] in _JAVA_PROGRAMS:
                streams.err.write(_VENDORS_TRACE)
            exit_code = await program(call)
            behaviour = self.device.behaviour
            seconds = behaviour.slow_seconds.get(argv[0], 0) + behaviour.pace * _SECONDS.get(argv[0], 0)
            if seconds:
                await call.last(seconds)
        finally:
            for number in call.effects if call.takes_time else ():
                self.device.effects.end(number)
        return exit_code

    async def _read(self, names: Sequence[str], streams: _Streams) -> int:
        line = await streams.stdin.read_line()
        words = (line or b"").decode(errors="replace").split(maxsplit=max(0, len(names) - 1))
        for place, name in enumerate(names):
            self.variables[name] = words[place].strip() if place < len(words) else ""
        return 0 if line is not None else 1

    def _marker(self) -> str | None:
        return self.variables.get(MARKER_VARIABLE)

    def _expand(self, words: Sequence[Word]) -> list[str]:
        """Words with their variables filled in; an unquoted variable may become several words or none."""
        expanded: list[str] = []
        for word in words:
            expanded.extend(self._expand_word(word))
        return expanded

    def _expand_word(self, word: Word) -> list[str]:
        pieces: list[str] = []
        exists = False
        for part in word:
            value = self._value(part.text) if part.is_variable else part.text
            if part.is_variable and not part.quoted:
                split = re.split(r"[ \t\n]+", value)
                pieces[-1:] = [(pieces[-1] if pieces else "") + split[0], *split[1:]]
            else:
                exists = True
                pieces[-1:] = [(pieces[-1] if pieces else "") + value]
        return pieces if exists else [piece for piece in pieces if piece]

    def _value(self, name: str) -> str:
        return str(self.exit_code) if name == "?" else self.variables.get(name, "")


async def _run_line(device: Device, line: str, streams: _Streams) -> int:
    try:
        commands = sh.parse(line)
    except sh.SyntaxNotSimulated as error:
        device.effects.append("syntax_not_simulated", [line], running=device.running, serial=device.serial)
        streams.err.write(f"/system/bin/sh: syntax not simulated: {error}\n".encode())
        return _SYNTAX_ERROR
    try:
        return await _Shell(device).run(commands, streams)
    except _Exit as ended:
        return ended.code
