"""Runs a command line on the simulated phone: its commands in order, with `&&`, `||`, `|` and the last one's exit code."""

import asyncio

from ops.phone import sh
from ops.phone.device import Device
from ops.phone.effects import MARKER_VARIABLE
from ops.phone.programs import PROGRAMS, Call, Result


async def run(device: Device, line: str) -> Result:
    """Run a command line as the phone's shell would.

    Returns:
        The joined output of its commands and the exit code of the last one that ran.
    """
    device.running += 1
    try:
        result = await _run(device, line)
        if device.behaviour.latency_seconds:
            await asyncio.sleep(device.behaviour.latency_seconds)
        return result
    finally:
        device.running -= 1


async def _run(device: Device, line: str) -> Result:
    try:
        commands = sh.parse(line)
    except sh.SyntaxNotSimulated as error:
        device.effects.append("syntax_not_simulated", [line], running=device.running, marker=None)
        return Result(stderr=f"/system/bin/sh: syntax not simulated: {error}\n".encode(), exit_code=2)
    stdout: list[bytes] = []
    stderr: list[bytes] = []
    exit_code = 0
    for command in commands:
        if (command.operator == "&&" and exit_code) or (command.operator == "||" and not exit_code):
            continue
        if command.argv[:1] == ["exit"]:
            exit_code = int(command.argv[1]) & 0xFF if command.argv[1:] and command.argv[1].isdigit() else exit_code
            break
        piped = b""
        if command.operator == "|":
            piped = stdout.pop() if stdout else b""
        result = _run_program(device, command, piped)
        stdout.append(result.stdout)
        stderr.append(result.stderr)
        exit_code = result.exit_code
        if result.seconds:
            await asyncio.sleep(result.seconds)
    return Result(b"".join(stdout), b"".join(stderr), exit_code)


def _run_program(device: Device, command: sh.SimpleCommand, piped: bytes) -> Result:
    if not command.argv:
        return Result()
    program = PROGRAMS.get(command.argv[0])
    if program is None:
        line = f"/system/bin/sh: {command.argv[0]}: inaccessible or not found\n"
        return Result(stderr=line.encode(), exit_code=127)
    return program(Call(device, command.argv, command.assignments.get(MARKER_VARIABLE), piped))
