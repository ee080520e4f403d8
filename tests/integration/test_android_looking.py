import asyncio
import re
import time

import pytest

from contracts.errors import ErrorCode, Permanent, Transient
from ops.simulators.phone.apps.perplexity import answer_to
from ops.simulators.phone.lab import until
from tests.integration.one_phone import OnePhone

FIND = {"action": "find", "selector": {"text": "Notes"}}
NEVER_IDLE = "ERROR: could not get idle state."
NO_WINDOW = "ERROR: null root node returned by UiTestAutomationBridge."


def dumps(phone: OnePhone) -> list[str]:
    asked = [line.message for line in phone.device.log.lines() if line.tag == "uiautomator"]
    return ["compressed" if "--compressed" in words else "plain" for words in asked]


async def test_an_animated_screen_is_read_by_a_look_that_asks_for_less(phone: OnePhone) -> None:
    phone.device.control.change(ui_dump="animated", pace=0.02)

    assert (await phone.run(**FIND))["count"] == 1
    assert (await phone.run(action="wait_for", selector={"text": "Notes"}))["count"] == 1
    assert (await phone.run(action="ui_dump"))["package"] == "com.ish.launcher"
    await phone.run(action="tap_on", selector={"text": "Notes"})
    answer = await phone.run(action="flow", name="perplexity.ask", inputs={"question": "Why?"})
    assert answer["answer"] == answer_to("Why?")


async def test_a_command_too_short_for_an_animated_screen_spares_the_next_one_the_wait(phone: OnePhone) -> None:
    # a full look waits 5 s here and gives up; one that asks for less takes 1.25 s
    phone.device.control.change(ui_dump="animated", pace=0.5)

    failure = await phone.failure(**FIND, timeout_seconds=2)
    found = await phone.run(**FIND)

    assert failure.code is ErrorCode.TIMEOUT
    assert found["count"] == 1
    assert dumps(phone) == ["plain", "compressed"]


async def test_a_minute_after_an_animation_the_whole_screen_is_read_again(phone: OnePhone) -> None:
    phone.device.control.change(ui_dump="animated")
    await phone.run(**FIND)
    phone.device.control.change(ui_dump="normal")
    await phone.run(**FIND)
    assert phone.screen.restless_until > time.monotonic()

    phone.screen.restless_until -= 60
    await phone.run(**FIND)

    assert dumps(phone) == ["plain", "compressed", "compressed", "plain"]


@pytest.mark.parametrize(
    "fields",
    [
        FIND,
        {"action": "ui_dump"},
        {"action": "wait_for", "selector": {"text": "Notes"}},
        {"action": "tap_on", "selector": {"text": "Notes"}},
        {"action": "clear_text"},
    ],
    ids=lambda fields: fields["action"],
)
async def test_a_screen_that_never_rests_fails_with_the_phones_reason(
    phone: OnePhone, fields: dict[str, object]
) -> None:
    phone.device.control.change(ui_dump="never_idle")

    failure = await phone.failure(**fields, timeout_seconds=2)

    assert isinstance(failure, Transient)
    assert failure.code is ErrorCode.TIMEOUT
    assert failure.message == f"the screen could not be read in time: {NEVER_IDLE}"


async def test_a_flow_on_a_screen_that_never_rests_tells_the_phones_reason(phone: OnePhone) -> None:
    phone.device.control.change(ui_dump="never_idle")

    failure = await phone.failure(action="flow", name="perplexity.open", timeout_seconds=3)

    assert NEVER_IDLE in failure.message


@pytest.mark.parametrize(
    "fields", [FIND, {"action": "flow", "name": "perplexity.open"}], ids=lambda fields: fields["action"]
)
async def test_a_time_that_is_over_in_the_middle_of_a_look_tells_the_phones_last_reason(
    phone: OnePhone, fields: dict[str, object]
) -> None:
    phone.device.control.change(ui_dump="never_idle")
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(phone.failure(**fields, timeout_seconds=4))
        await until(lambda: len(dumps(phone)) > 1)
        phone.device.control.change(pace=10)  # the next look takes 100 s

    assert NEVER_IDLE in looking.result().message


async def test_a_moment_without_a_window_is_waited_for(phone: OnePhone) -> None:
    phone.device.control.change(ui_dumps_without_window=3)

    assert (await phone.run(**FIND))["count"] == 1
    assert phone.device.behaviour.ui_dumps_without_window == 0


async def test_a_phone_that_never_has_a_window_is_asked_a_few_times_only(phone: OnePhone) -> None:
    phone.device.control.change(ui_dumps_without_window=1000)

    failure = await phone.failure(**FIND, timeout_seconds=60)

    assert isinstance(failure, Permanent)
    assert failure.message == f"the screen could not be read, 5 times in a row: {NO_WINDOW}"
    assert phone.device.behaviour.ui_dumps_without_window == 995


@pytest.mark.parametrize("noise", ["invalid_xml", "stack_trace"])
async def test_what_a_vendor_writes_into_a_dump_hides_nothing(phone: OnePhone, noise: str) -> None:
    phone.device.control.change(ui_dump_noise=noise)

    assert (await phone.run(**FIND))["count"] == 1
    assert (await phone.run(action="wait_for", selector={"text": "Notes"}))["count"] == 1
    dump = await phone.read(action="ui_dump")
    assert not re.search(rb"[\x00-\x08]|&#0;", dump.artifacts[0].content)
    answer = await phone.run(action="flow", name="perplexity.ask", inputs={"question": "Why?"})
    assert answer["answer"] == answer_to("Why?")


async def test_halves_of_a_character_are_put_together(phone: OnePhone) -> None:
    phone.device.control.change(ui_dump_noise="invalid_xml")

    found = await phone.run(action="find", selector={"text_contains": "😀"})

    assert found["elements"][0]["text"].startswith("a\ufffdb\ufffd\ufffd 😀 ")
