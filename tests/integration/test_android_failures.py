import asyncio
import time
import tracemalloc
from typing import Any

import pytest

from contracts.android.command import action_from
from contracts.errors import CommandError, Deferred, ErrorCode, Indeterminate, Permanent, Transient
from ops.simulators.phone.lab import until, until_state
from tests.integration.one_phone import BOTH_ADBS, NOTES, OnePhone
from workers.android.adb.server import MAX_OUTPUT_BYTES, AdbServer
from workers.android.runner import run_action
from workers.android.session import FENCE_FILE

TAP = {"action": "tap", "x": 1, "y": 2}
MIB = 1024 * 1024


pytestmark = BOTH_ADBS


@pytest.mark.parametrize("answer", ["hang_open", "hang", "lost", "black_hole", "drip", "vanish"])
async def test_a_tap_whose_answer_is_lost_is_indeterminate(phone: OnePhone, answer: str) -> None:
    phone.device.control.change(answer=answer)

    failure = await phone.failure(**TAP, timeout_seconds=0.5)

    assert isinstance(failure, Indeterminate)
    assert failure.details["cause"] in ("timeout", "device_offline")


@pytest.mark.parametrize("answer", ["hang_open", "hang", "black_hole", "drip"])
async def test_a_reading_whose_answer_is_lost_may_be_tried_again(phone: OnePhone, answer: str) -> None:
    phone.device.control.change(answer=answer)
    begun = time.monotonic()

    failure = await phone.failure(action="battery", timeout_seconds=0.5)

    assert isinstance(failure, Transient)
    assert failure.code is ErrorCode.TIMEOUT
    assert time.monotonic() - begun < 5  # hung, it would be for ever


async def test_a_tap_that_never_left_may_be_tried_again(phone: OnePhone, server: AdbServer) -> None:
    phone.device.control.change(present=False)
    await until_state(server, phone.transport.serial, "offline")

    failure = await phone.failure(**TAP)

    assert isinstance(failure, Transient)
    assert failure.code is ErrorCode.DEVICE_OFFLINE
    assert phone.effects() == []


async def test_a_phone_that_vanishes_in_the_middle_is_never_a_success(phone: OnePhone) -> None:
    phone.device.control.change(slow_seconds={"input": 1000})
    async with asyncio.TaskGroup() as tasks:
        tap = tasks.create_task(phone.failure(**TAP))
        await until(lambda: phone.device.effects.count > 0)
        phone.device.control.change(present=False)

    assert isinstance(tap.result(), Indeterminate)


async def test_a_line_is_not_sent_when_the_time_is_over(phone: OnePhone) -> None:
    with pytest.raises(Transient) as caught:
        await run_action(
            phone.transport, action_from(TAP), deadline=time.monotonic(), fence=None, artifact_limit_bytes=MIB
        )

    assert caught.value.code is ErrorCode.TIMEOUT
    assert phone.effects() == []


@pytest.mark.parametrize(("line", "exit_code"), [("exit 7", 7), ("no-such-program", 127), ("exit 0", 0)])
async def test_exit_codes_are_exact_with_and_without_a_fence(phone: OnePhone, line: str, exit_code: int) -> None:
    await phone.shell(f"echo 17 >{FENCE_FILE}")
    for fence in (None, "17"):
        fenced = line if fence is None else f'if read f <{FENCE_FILE} && [ "$f" = {fence} ]; then {line}\nfi'
        output = await phone.transport.server.shell(phone.transport.serial, fenced, timeout_seconds=60)
        assert output.exit_code == exit_code


async def test_a_failed_program_tells_its_exit_code_and_both_outputs(phone: OnePhone) -> None:
    failure = await phone.failure(action="shell", argv=["pidof", "com.none.such"])

    assert isinstance(failure, Permanent)
    assert failure.details == {"exit_code": 1, "stdout": "", "stderr": ""}


async def test_output_beyond_the_limit_is_cut_off_and_says_so(phone: OnePhone) -> None:
    output = await phone.run(action="shell", argv=["echo", "x" * 2000], max_output_bytes=1000)

    assert output["truncated"] is True
    assert output["exit_code"] is None
    assert output["stdout"] == "x" * 1000


async def test_fifty_megabytes_need_no_more_memory_than_the_limit(phone: OnePhone) -> None:
    tracemalloc.start()
    try:
        output = await phone.transport.server.shell(phone.transport.serial, "cat /sdcard/big", timeout_seconds=60)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert output.truncated
    assert len(output.stdout) == MAX_OUTPUT_BYTES
    assert peak_bytes < 16 * MIB


async def fenced(phone: OnePhone, number: int) -> None:
    await phone.shell(f"echo {number} >{FENCE_FILE}.new && mv {FENCE_FILE}.new {FENCE_FILE}")


async def test_a_line_with_the_phones_fence_is_run(phone: OnePhone) -> None:
    await fenced(phone, 17)
    phone.fence = "17"

    await phone.run(action="start_app", package=NOTES)
    await phone.run(action="text", text="日本 'a'\nb")
    await phone.run(action="push", path="/sdcard/x", content_base64="eA==")

    assert phone.note == "日本 'a'\nb"
    assert len(phone.effects("push")) == 1


@pytest.mark.parametrize(
    "fields",
    [
        TAP,
        {"action": "text", "text": "a"},
        {"action": "text", "text": "日本"},
        {"action": "start_app", "package": NOTES},
        {"action": "open_url", "url": "https://example.org/"},
        {"action": "uninstall", "package": "ai.perplexity.app.android"},
        {"action": "push", "path": "/sdcard/x", "content_base64": "eA=="},
        {"action": "record", "seconds": 1},
        {"action": "flow", "name": "perplexity.search", "inputs": {"query": "q"}},
        {"action": "batch", "actions": [TAP, TAP]},
        {"action": "shell", "argv": ["input", "tap", "1", "2"]},
    ],
    ids=lambda fields: fields["action"],
)
@pytest.mark.parametrize("number", [18, None], ids=["another holder's", "none"])
async def test_a_stale_fence_has_no_effect(phone: OnePhone, fields: dict[str, Any], number: int | None) -> None:
    if number is not None:
        await fenced(phone, number)
    before = phone.device.effects.count
    phone.fence = "17"

    failure = await phone.failure(**fields)

    assert isinstance(failure, Transient)
    assert failure.code is ErrorCode.DEVICE_BUSY
    assert phone.device.effects.count == before


async def test_a_fence_that_changes_in_the_middle_leaves_a_batch_indeterminate(phone: OnePhone) -> None:
    await fenced(phone, 17)
    phone.fence = "17"
    phone.device.control.change(slow_seconds={"am": 1})

    async with asyncio.TaskGroup() as tasks:
        start = {"action": "start_app", "package": NOTES}
        batch = tasks.create_task(phone.failure(action="batch", actions=[TAP, start, TAP]))
        await until(lambda: bool(phone.effects("start_app")))
        await fenced(phone, 18)

    failure = batch.result()
    assert isinstance(failure, Indeterminate)
    assert failure.details["failed_action"] == 2
    assert failure.details["cause"] == "device_busy"
    assert len(phone.effects("tap")) == 1


async def test_a_batch_of_readings_may_be_tried_again_and_one_that_tapped_may_not(phone: OnePhone) -> None:
    phone.device.control.change(slow_seconds={"dumpsys": 60})

    reading = await phone.failure(
        action="batch", actions=[{"action": "wake"}, {"action": "battery"}], timeout_seconds=1
    )
    tapping = await phone.failure(action="batch", actions=[TAP, {"action": "battery"}], timeout_seconds=1)

    assert isinstance(reading, Transient)
    assert isinstance(tapping, Indeterminate)
    assert tapping.details["failed_action"] == 1


async def test_nothing_is_sent_once_the_check_says_no(phone: OnePhone) -> None:
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise Deferred(ErrorCode.DEVICE_BUSY, "the lease is over")

    with pytest.raises(CommandError) as caught:
        await run_action(
            phone.transport,
            action_from({"action": "batch", "actions": [TAP, TAP]}),
            deadline=time.monotonic() + 60,
            fence=None,
            artifact_limit_bytes=MIB,
            check=check,
        )

    assert isinstance(caught.value, Indeterminate)
    assert len(phone.effects("tap")) == 1
