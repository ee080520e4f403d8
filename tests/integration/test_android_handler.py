import asyncio
import io
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from contracts.android import AndroidExecute
from contracts.errors import CommandError, ErrorCode, Expired, Indeterminate, Permanent, Transient
from contracts.settings import Settings
from ops.phone.device import Device
from ops.phone.effects import read_effects
from ops.phone.lab import connected_phone, running_adb_server, until, until_state
from workers.android.adb import AdbServer
from workers.android.handler import build
from workers.handler import Command, Handler, Outcome

PATIENCE_SECONDS = 60
HOSTILE_PIECES = (
    *("; reboot", "$(id)", "`id`", "&& input tap 9 9", "|| input tap 9 9", "| sh", "> /sdcard/x", "< /dev/null"),
    *("'", '"', "\\", "\\'", "'; input tap 9 9; '", '"; input tap 9 9; "', "\n input tap 9 9\n", "%s", "%%s", "%", "s"),
    *(
        "*",
        "?",
        "[a-z]",
        "{a,b}",
        "~",
        "#",
        "!",
        "$HOME",
        "${IFS}",
        "-n",
        "--",
        " ",
        "\t",
        "é",
        "日本",
        "🙂",
        "\r",
        "a",
    ),
)
TYPEABLE = {"\n", "\t", *map(chr, range(32, 127))}


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AdbServer]:
    async with running_adb_server(tmp_path_factory.mktemp("adb")) as running:
        yield running


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "effects.jsonl"


@pytest.fixture
async def device(server: AdbServer, log: Path) -> AsyncIterator[Device]:
    async with connected_phone(server, "SIM1", effects=log) as connected:
        yield connected


@pytest.fixture
def handler(server: AdbServer, device: Device) -> Handler:
    del device
    return build(Settings(adb_servers=str(server)))


def command(*, within_seconds: float = PATIENCE_SECONDS, **fields: Any) -> Command[AndroidExecute]:
    now = datetime.now(UTC)
    return Command(
        publisher="demo",
        id=uuid4(),
        kind="android.execute",
        owner="owner",
        payload=AndroidExecute.model_validate(fields),
        attempt=1,
        accepted_at=now,
        deadline_at=now + timedelta(seconds=within_seconds),
    )


async def run(handler: Handler, **fields: Any) -> dict[str, Any]:
    return (await handler(command(**fields))).output


async def failure_of(handler: Handler, **fields: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        await handler(command(**fields))
    return caught.value


async def test_status_says_what_the_phone_is_and_shows(handler: Handler) -> None:
    output = await run(handler, action="status")

    assert output["device"] == "SIM1"
    assert output["model"] == "ISH Simulated Phone"
    assert output["android_version"] == "14"
    assert output["battery"]["level_percent"] == 87
    assert output["screen"] == {"width": 720, "height": 1280, "on": True}
    assert output["current_app"]["package"] == "com.ish.launcher"


async def test_a_command_line_answers_as_its_action_does(handler: Handler) -> None:
    output = await run(handler, command="shell getprop ro.product.model")

    assert output["action"] == "getprop"
    assert output["value"] == "ISH Simulated Phone"


async def test_a_screenshot_is_the_picture_of_what_was_done(handler: Handler) -> None:
    await run(handler, action="tap", x=160, y=320)
    await run(handler, action="text", text="milk & eggs")

    outcome: Outcome = await handler(command(action="screenshot"))

    [artifact] = outcome.artifacts
    assert outcome.output["artifact"]["sha256"] == artifact.sha256
    assert outcome.usage.target == "SIM1"
    with Image.open(io.BytesIO(artifact.content)) as picture:
        picture.load()
        assert picture.size == (outcome.output["artifact"]["width"], outcome.output["artifact"]["height"])


async def test_actions_change_the_phone_as_they_say(handler: Handler, device: Device) -> None:
    await run(handler, action="start_app", package="com.ish.notes")
    assert (await run(handler, action="current_app"))["activity"] == "com.ish.notes.Notes"
    await run(handler, action="text", text='100%s "sure" $(x)\nnext')
    assert device.screen.typed["com.ish.notes"] == '100%s "sure" $(x)\nnext'
    await run(handler, action="key", key="home")
    assert (await run(handler, action="current_app"))["package"] == "com.ish.launcher"
    await run(handler, action="key", key="SLEEP")
    assert (await run(handler, action="status"))["screen"]["on"] is False
    await run(handler, action="wake")
    assert device.screen.awake


async def test_no_hostile_text_does_anything_but_be_typed(handler: Handler, device: Device, log: Path) -> None:
    await run(handler, action="start_app", package="com.ish.notes")
    picker = random.Random(20240229)
    for _ in range(1000):
        text = "".join(picker.choices(HOSTILE_PIECES, k=picker.randint(1, 5)))
        effects_before = device.effects.count
        device.screen.typed.clear()
        if set(text) <= TYPEABLE:
            await run(handler, action="text", text=text)
            assert device.screen.typed["com.ish.notes"] == text
        else:
            failure = await failure_of(handler, action="text", text=text)
            assert failure.code is ErrorCode.UNSUPPORTED_TEXT_INPUT
            assert device.effects.count == effects_before

    assert {effect["action"] for effect in read_effects(log)} == {"start_app", "text"}


@pytest.mark.parametrize("answer", ["hang_open", "hang", "lost"])
async def test_a_tap_whose_answer_is_lost_is_indeterminate(handler: Handler, device: Device, answer: str) -> None:
    await run(handler, action="wake")
    device.control.change(answer=answer)

    failure = await failure_of(handler, action="tap", x=1, y=2, timeout_seconds=1)

    assert isinstance(failure, Indeterminate)
    assert failure.details["device"] == "SIM1"


async def test_a_reading_whose_answer_is_lost_may_be_tried_again(handler: Handler, device: Device) -> None:
    await run(handler, action="wake")
    device.control.change(answer="hang")

    failure = await failure_of(handler, action="battery", timeout_seconds=1)

    assert isinstance(failure, Transient)
    assert failure.code is ErrorCode.TIMEOUT


async def test_a_tap_that_never_left_may_be_tried_again(
    handler: Handler, server: AdbServer, device: Device, log: Path
) -> None:
    await run(handler, action="wake")
    [phone] = await server.phones(timeout_seconds=PATIENCE_SECONDS)
    device.control.change(present=False)
    await until_state(server, phone.serial, "offline")
    await until_code(handler, ErrorCode.DEVICE_OFFLINE)

    failure = await failure_of(handler, action="tap", x=1, y=2, device="SIM1")

    assert isinstance(failure, Transient)
    assert failure.code is ErrorCode.DEVICE_OFFLINE
    assert [effect["action"] for effect in read_effects(log)] == ["key"]


async def until_code(handler: Handler, code: ErrorCode) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await run(handler, action="battery")
            except CommandError as error:
                if error.code is code:
                    return
            await asyncio.sleep(0.05)


async def test_an_unauthorized_phone_says_what_to_do(handler: Handler, server: AdbServer, device: Device) -> None:
    [phone] = await server.phones(timeout_seconds=PATIENCE_SECONDS)
    device.control.change(authorized=False)
    await until_state(server, phone.serial, "unauthorized")

    failure = await failure_of(handler, action="battery")

    assert isinstance(failure, Transient)
    assert failure.code is ErrorCode.DEVICE_UNAUTHORIZED
    assert "USB debugging prompt" in failure.message


async def test_a_phone_nobody_has_seen_is_not_waited_for(handler: Handler) -> None:
    failure = await failure_of(handler, action="battery", device="OTHER")

    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.DEVICE_NOT_FOUND
    assert "SIM1" in failure.message


async def test_a_phone_that_was_there_before_is_waited_for(
    server: AdbServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    del server
    async with running_adb_server(tmp_path_factory.mktemp("adb2")) as other:
        handler = build(Settings(adb_servers=str(other)))
        async with connected_phone(other, "SIM2"):
            await run(handler, action="battery", device="SIM2")
        await until_code(handler, ErrorCode.DEVICE_NOT_FOUND)

        failure = await failure_of(handler, action="battery", device="SIM2")

    assert isinstance(failure, Transient)
    assert failure.code is ErrorCode.DEVICE_NOT_FOUND


async def test_no_adb_server_and_no_phone_say_what_to_configure(tmp_path_factory: pytest.TempPathFactory) -> None:
    unconfigured = await failure_of(build(Settings(adb_servers="")), action="battery")
    async with running_adb_server(tmp_path_factory.mktemp("adb3")) as empty:
        phoneless = await failure_of(build(Settings(adb_servers=str(empty))), action="battery")
    stopped = await failure_of(build(Settings(adb_servers=str(empty))), action="battery")

    for failure in (unconfigured, phoneless):
        assert isinstance(failure, Permanent)
        assert failure.code is ErrorCode.DEVICE_NOT_CONFIGURED
        assert "ISH_ADB_SERVERS" in failure.message
    assert isinstance(stopped, Transient)
    assert stopped.code is ErrorCode.ADB_SERVER_DOWN


async def test_one_dead_adb_server_does_not_hide_the_phones_of_another(server: AdbServer, device: Device) -> None:
    del device
    handler = build(Settings(adb_servers=f"127.0.0.1:1,{server}"))

    assert (await run(handler, action="battery"))["device"] == "SIM1"


async def test_a_passed_deadline_sends_nothing(handler: Handler, device: Device) -> None:
    failure = await failure_of(handler, action="tap", x=1, y=2, within_seconds=-1)

    assert isinstance(failure, Expired)
    assert device.effects.count == 0


async def test_a_command_whose_phone_stays_busy_expires_without_an_effect(handler: Handler, device: Device) -> None:
    await run(handler, action="battery")
    device.control.change(latency_seconds=4)
    async with asyncio.TaskGroup() as tasks:
        holding = tasks.create_task(run(handler, action="tap", x=1, y=2))
        await until(lambda: device.effects.count > 0)

        failure = await failure_of(handler, action="tap", x=3, y=4, within_seconds=1)

    assert isinstance(failure, Expired)
    assert holding.result()["device"] == "SIM1"
    assert device.effects.count == 1


async def test_commands_for_one_phone_run_one_at_a_time_in_order(handler: Handler, device: Device, log: Path) -> None:
    device.control.change(latency_seconds=0.005)
    await run(handler, action="wake")
    async with asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(run(handler, action="tap", x=number, y=0, device="SIM1"))

    taps = [effect for effect in read_effects(log) if effect["action"] == "tap"]
    assert [int(tap["argv"][2]) for tap in taps] == list(range(40))
    assert {tap["running"] for tap in taps} == {1}


async def test_a_command_for_any_phone_takes_an_idle_one(handler: Handler, server: AdbServer, device: Device) -> None:
    async with connected_phone(server, "SIM2") as other:
        await until_picked(handler, {"SIM1", "SIM2"})
        device.control.change(latency_seconds=3600)
        async with asyncio.TaskGroup() as tasks:
            stuck = tasks.create_task(run(handler, action="battery", device="SIM1"))
            await until(lambda: device.running > 0)

            picked = {(await run(handler, action="battery"))["device"] for _ in range(5)}

            stuck.cancel()
    assert picked == {"SIM2"}
    assert not other.running


async def until_picked(handler: Handler, serials: set[str]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        for serial in serials:
            while True:
                try:
                    await run(handler, action="battery", device=serial)
                except CommandError:
                    await asyncio.sleep(0.05)
                else:
                    break


async def test_a_phone_that_did_not_answer_is_avoided_for_a_while(
    handler: Handler, server: AdbServer, device: Device
) -> None:
    async with connected_phone(server, "SIM2"):
        await until_picked(handler, {"SIM1", "SIM2"})
        device.control.change(answer="hang")
        await failure_of(handler, action="battery", device="SIM1", timeout_seconds=0.5)

        picked = {(await run(handler, action="battery"))["device"] for _ in range(5)}

    assert picked == {"SIM2"}


async def test_a_garbage_screenshot_is_an_error(handler: Handler, device: Device) -> None:
    device.control.change(screencap="garbage")
    assert (await failure_of(handler, action="screenshot")).code is ErrorCode.BAD_SCREENSHOT

    device.control.change(screencap="warned")
    assert (await run(handler, action="screenshot"))["artifact"]["width"] == 720


async def test_a_phone_that_forbids_input_is_denied_without_an_effect(handler: Handler, device: Device) -> None:
    device.control.change(injects_input=False)

    failure = await failure_of(handler, action="tap", x=1, y=2)

    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.DENIED
    assert device.effects.count == 0
