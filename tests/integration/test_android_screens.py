import io

import pytest
from PIL import Image

from contracts.errors import ErrorCode
from tests.integration.one_phone import NOTES, OnePhone

LAUNCHER = "com.ish.launcher"


async def test_each_display_is_pictured_and_the_warning_about_several_is_read_past(phone: OnePhone) -> None:
    phone.device.control.change(displays=2)

    usual = await phone.run(action="screenshot")
    first = await phone.run(action="screenshot", display=0)
    second = await phone.run(action="screenshot", display=1)
    none = await phone.failure(action="screenshot", display=2)

    assert usual["artifact"]["width"] == first["artifact"]["width"] == 720
    assert "all_black" not in first
    assert second["all_black"] is True
    assert none.code is ErrorCode.BAD_SCREENSHOT
    assert none.message == "the phone has 2 displays, counted from 0: none is 2"


async def test_a_window_that_may_not_be_pictured_is_told(phone: OnePhone) -> None:
    phone.device.control.change(secure_window=True)

    output = await phone.run(action="screenshot")

    assert output["all_black"] is True
    assert "may not be pictured" in output["hint"]


async def test_the_lock_screen_is_in_front_and_not_the_app_behind_it(phone: OnePhone) -> None:
    await phone.run(action="start_app", package=NOTES)
    assert (await phone.run(action="current_app"))["locked"] is False

    phone.device.control.change(lock="secure")

    assert await phone.run(action="current_app") == {"package": None, "activity": None, "locked": True}
    assert (await phone.run(action="status"))["current_app"]["locked"] is True
    assert (await phone.run(action="ui_dump"))["package"] == "com.android.systemui"
    assert (await phone.run(action="find", selector={"package": NOTES}))["count"] == 0


@pytest.mark.parametrize("rotation", [0, 1, 2, 3])
async def test_an_element_of_a_turned_screen_is_where_it_is_touched(phone: OnePhone, rotation: int) -> None:
    phone.device.control.change(rotation=rotation)

    dump = await phone.run(action="ui_dump")
    picture = (await phone.read(action="screenshot")).artifacts[0]
    await phone.run(action="tap_on", selector={"text": "Notes"})

    size = (720, 1280) if rotation % 2 == 0 else (1280, 720)
    right = max(element["bounds"]["right"] for element in dump["elements"])
    assert dump["rotation_degrees"] == 90 * rotation
    assert right <= size[0]
    with Image.open(io.BytesIO(picture.content)) as image:
        assert image.size == size
    assert (await phone.run(action="current_app"))["package"] == NOTES
