import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from contracts.errors import ErrorCode
from ops.simulators.phone.device import Device
from ops.simulators.phone.fleet import Listening
from ops.simulators.phone.lab import connected_phones, until, until_state
from workers.android.adb.server import MAX_OUTPUT_BYTES, AdbFailure, AdbServer

LIMIT_SECONDS = 2
PATIENCE_SECONDS = 60


@pytest.fixture
async def phone(server: AdbServer) -> AsyncIterator[Listening]:
    async with connected_phones([server], ["SIM1"]) as [connected]:
        yield connected


@pytest.fixture
def device(phone: Listening) -> Device:
    return phone.device


@pytest.fixture
def serial(phone: Listening) -> str:
    return phone.address  # adb's serial of a phone that it was told to connect to


@asynccontextmanager
async def imposter(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> AsyncIterator[AdbServer]:
    """Something that listens where an adb server should."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        answer(reader, writer)
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield AdbServer("127.0.0.1", listener.sockets[0].getsockname()[1])


async def failure_of(server: AdbServer, serial: str, line: str, *, within_seconds: float = LIMIT_SECONDS) -> AdbFailure:
    with pytest.raises(AdbFailure) as caught:
        await server.shell(serial, line, timeout_seconds=within_seconds)
    return caught.value


async def test_exit_code_stdout_and_stderr_arrive_apart(server: AdbServer, serial: str) -> None:
    output = await server.shell(serial, "echo out; ls /nope; exit 7", timeout_seconds=PATIENCE_SECONDS)

    assert output.stdout == b"out\n"
    assert output.stderr == b"ls: /nope: No such file or directory\n"
    assert output.exit_code == 7
    assert not output.truncated


async def test_an_unknown_program_is_127(server: AdbServer, serial: str) -> None:
    assert (await server.shell(serial, "foo", timeout_seconds=PATIENCE_SECONDS)).exit_code == 127


async def test_fifty_megabytes_are_cut_off_at_the_limit(server: AdbServer, serial: str) -> None:
    output = await server.shell(serial, "seq 7000000", timeout_seconds=PATIENCE_SECONDS)

    assert len(output.stdout) == MAX_OUTPUT_BYTES
    assert output.stdout.startswith(b"1\n2\n3\n")
    assert output.truncated
    assert output.exit_code is None


async def test_output_as_long_as_the_limit_is_not_cut_off(server: AdbServer, serial: str) -> None:
    output = await server.shell(serial, "seq 9", timeout_seconds=PATIENCE_SECONDS, max_output_bytes=18)

    assert (len(output.stdout), output.exit_code, output.truncated) == (18, 0, False)


@pytest.mark.parametrize("answer", ["hang_open", "hang", "black_hole"])
async def test_a_phone_that_does_not_answer_is_a_timeout(
    server: AdbServer, device: Device, serial: str, answer: str
) -> None:
    device.control.change(answer=answer)

    failure = await failure_of(server, serial, "true")

    assert failure.code is ErrorCode.TIMEOUT
    assert failure.begun


async def test_dripping_output_does_not_stretch_the_limit(server: AdbServer, device: Device, serial: str) -> None:
    device.control.change(drip_seconds=0.3)

    failure = await failure_of(server, serial, "seq 1000")

    assert failure.code is ErrorCode.TIMEOUT


async def test_a_phone_that_vanishes_in_the_middle_is_never_a_success(
    server: AdbServer, device: Device, serial: str
) -> None:
    device.control.change(answer="lost")

    failure = await failure_of(server, serial, "input tap 1 2")

    assert failure.code is ErrorCode.DEVICE_OFFLINE
    assert failure.begun
    assert device.effects.count == 1


async def test_a_phone_that_vanishes_while_a_command_runs_is_never_a_success(
    server: AdbServer, device: Device, serial: str
) -> None:
    async with asyncio.TaskGroup() as tasks:
        failing = tasks.create_task(failure_of(server, serial, "sleep 1000", within_seconds=PATIENCE_SECONDS))
        await until(lambda: device.running > 0)
        device.control.change(present=False)

    assert failing.result().code is ErrorCode.DEVICE_OFFLINE


async def test_an_unknown_phone_is_not_found_and_nothing_has_begun(server: AdbServer, serial: str) -> None:
    failure = await failure_of(server, f"{serial}0", "true")

    assert failure.code is ErrorCode.DEVICE_NOT_FOUND
    assert not failure.begun


async def test_an_unauthorized_phone_says_what_to_do_and_nothing_has_begun(
    server: AdbServer, device: Device, serial: str
) -> None:
    device.control.change(authorized=False)
    await until_state(server, serial, "unauthorized")

    failure = await failure_of(server, serial, "true")

    assert failure.code is ErrorCode.DEVICE_UNAUTHORIZED
    assert "USB debugging prompt" in failure.message
    assert not failure.begun


async def test_connecting_to_nothing_is_an_error_although_adb_calls_it_okay(server: AdbServer) -> None:
    with pytest.raises(AdbFailure) as caught:
        await server.connect("127.0.0.2:1", timeout_seconds=PATIENCE_SECONDS)

    assert caught.value.code is ErrorCode.DEVICE_OFFLINE
    assert "127.0.0.2:1" in caught.value.message


async def test_no_server_is_adb_server_down_with_how_to_start_one() -> None:
    nowhere = AdbServer("127.0.0.1", 1)

    failure = await failure_of(nowhere, "SIM1", "true")

    assert failure.code is ErrorCode.ADB_SERVER_DOWN
    assert "start-server" in failure.message
    assert not failure.begun


async def test_a_server_that_says_nothing_is_a_timeout() -> None:
    async with imposter(lambda _reader, _writer: None) as silent:
        with pytest.raises(AdbFailure) as caught:
            await silent.phones(timeout_seconds=0.5)

    assert caught.value.code is ErrorCode.TIMEOUT


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"OKAYzzzz", b"FAILxxxx"])
async def test_what_is_no_adb_server_is_reported_and_not_believed(answer: bytes) -> None:
    async with imposter(lambda _reader, writer: writer.write(answer)) as other:
        with pytest.raises(AdbFailure) as caught:
            await other.phones(timeout_seconds=PATIENCE_SECONDS)

    assert caught.value.code in (ErrorCode.ADB_SERVER_DOWN, ErrorCode.DEVICE_OFFLINE)


async def test_a_cancelled_command_leaves_no_connection_behind(server: AdbServer, device: Device, serial: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(server.shell(serial, "sleep 1000", timeout_seconds=PATIENCE_SECONDS))
        await until(lambda: device.running > 0)

        running.cancel()

        await until(lambda: device.running == 0)
    assert running.cancelled()
