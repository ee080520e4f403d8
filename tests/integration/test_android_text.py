import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.errors import ErrorCode, Indeterminate, Permanent
from ops.simulators.phone.device import LATIN_KEYBOARD
from ops.simulators.phone.lab import until
from tests.integration.one_phone import NOTES, OnePhone, one_phone
from workers.android.adb.server import AdbServer
from workers.android.keyboard import ADB_KEYBOARD


@pytest.fixture
async def phone(server: AdbServer, tmp_path: Path) -> AsyncIterator[OnePhone]:
    async with one_phone(server, tmp_path) as connected:
        await connected.run(action="start_app", package=NOTES)
        yield connected


@pytest.mark.parametrize(
    "text",
    [
        '100%s "sure" $(x)\nnext',
        "`id` 'quoted' \\ %%s",
        "日本語と中文",
        "🙂👩‍👩‍👧‍👦 é e\u0301",
        "שלום \u202eabc",
        "-n",
        "--es msg x",
    ],
)
async def test_text_arrives_character_for_character(phone: OnePhone, text: str) -> None:
    await phone.run(action="text", text=text)

    assert phone.note == text


async def test_a_long_text_in_any_script_arrives_whole(phone: OnePhone) -> None:
    text = "".join(chr(0x4E00 + place) for place in range(3998)) + "🙂!"

    await phone.run(action="text", text=text)

    assert phone.note == text


async def test_the_input_method_is_set_back_after_typing(phone: OnePhone) -> None:
    await phone.run(action="text", text="日本")

    assert phone.device.input_method == LATIN_KEYBOARD
    assert [effect["method"] for effect in phone.effects("ime_set")] == [ADB_KEYBOARD, LATIN_KEYBOARD]


async def test_the_input_method_is_set_back_also_when_typing_does_not_end_in_time(phone: OnePhone) -> None:
    phone.device.control.change(slow_seconds={"am": 1000})

    failure = await phone.failure(action="text", text="日本", timeout_seconds=2)

    assert isinstance(failure, Indeterminate)
    assert phone.device.input_method == LATIN_KEYBOARD


async def test_the_input_method_is_set_back_also_when_typing_is_cancelled(phone: OnePhone) -> None:
    phone.device.control.change(slow_seconds={"am": 1000})
    async with asyncio.TaskGroup() as tasks:
        typing = tasks.create_task(phone.run(action="text", text="日本"))
        await until(lambda: bool(phone.effects("text")))

        typing.cancel()

    assert phone.device.input_method == LATIN_KEYBOARD


async def test_an_input_method_in_use_already_is_left_in_use(phone: OnePhone) -> None:
    await phone.shell(f"ime enable {ADB_KEYBOARD} && ime set {ADB_KEYBOARD}")
    before = len(phone.effects("ime_set"))

    await phone.run(action="text", text="日本")

    assert phone.note == "日本"
    assert len(phone.effects("ime_set")) == before


async def test_without_adb_keyboard_only_ascii_can_be_typed(phone: OnePhone) -> None:
    phone.device.remove_app("com.android.adbkeyboard")

    failure = await phone.failure(action="text", text="日本")

    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.UNSUPPORTED_TEXT_INPUT
    assert "ADBKeyboard" in failure.message
    assert phone.effects("text", "ime_set", "ime_enable") == []
    await phone.run(action="text", text="ascii")
    assert phone.note == "ascii"


@pytest.mark.parametrize("text", ["", "one line", "日本 🙂\nand\nmore", "x" * 1200])
async def test_clearing_empties_the_field_wherever_the_cursor_is(phone: OnePhone, text: str) -> None:
    if text:
        await phone.run(action="text", text=text)
        await phone.run(action="key", key="DPAD_LEFT")

    await phone.run(action="clear_text")

    assert phone.note == ""


async def test_clearing_without_a_focused_field_says_so(phone: OnePhone) -> None:
    await phone.run(action="key", key="HOME")

    failure = await phone.failure(action="clear_text")

    assert failure.code is ErrorCode.ELEMENT_NOT_FOUND
    assert phone.effects("key")[1:] == []
