import io

import pytest
from PIL import Image

from contracts.errors import ErrorCode, Permanent, Transient
from tests.integration.one_phone import NOTES, OnePhone


async def test_status_says_what_the_phone_is_and_shows(phone: OnePhone) -> None:
    output = await phone.run(action="status")

    assert output["model"] == "ISH Simulated Phone"
    assert output["android_version"] == "14"
    assert output["battery"]["level_percent"] == 87
    assert output["screen"] == {"width": 720, "height": 1280, "on": True}
    assert output["current_app"]["package"] == "com.ish.launcher"


async def test_a_screenshot_is_the_picture_of_what_is_on_the_screen(phone: OnePhone) -> None:
    reading = await phone.read(action="screenshot")

    [artifact] = reading.artifacts
    described = reading.output["artifact"]
    assert (described["sha256"], described["size_bytes"]) == (artifact.sha256, len(artifact.content))
    with Image.open(io.BytesIO(artifact.content)) as picture:
        picture.load()
        assert picture.size == (described["width"], described["height"]) == (720, 1280)


async def test_a_garbage_screenshot_is_an_error_and_a_warning_before_one_is_none(phone: OnePhone) -> None:
    for broken in ("garbage", "truncated"):
        phone.device.control.change(screencap=broken)
        assert (await phone.failure(action="screenshot")).code is ErrorCode.BAD_SCREENSHOT

    phone.device.control.change(screencap="warned")
    assert (await phone.run(action="screenshot"))["artifact"]["width"] == 720


async def test_a_screenshot_larger_than_an_artifact_may_be_is_truncated(phone: OnePhone) -> None:
    phone.limit_bytes = 1024

    assert (await phone.failure(action="screenshot")).code is ErrorCode.TRUNCATED


async def test_touches_and_keys_reach_the_phone_as_given(phone: OnePhone) -> None:
    await phone.run(action="tap", x=10, y=20)
    await phone.run(action="swipe", x1=1, y1=2, x2=3, y2=4, duration_ms=50)
    await phone.run(action="long_press", x=5, y=6, duration_ms=60)
    await phone.run(action="key", key="home")

    done = phone.effects()
    assert [effect["argv"][1:] for effect in done] == [
        ["tap", "10", "20"],
        ["swipe", "1", "2", "3", "4", "50"],
        ["swipe", "5", "6", "5", "6", "60"],
        ["keyevent", "KEYCODE_HOME"],
    ]


async def test_apps_start_show_and_stop(phone: OnePhone) -> None:
    await phone.run(action="start_app", package=NOTES)
    assert (await phone.run(action="current_app"))["activity"] == "com.ish.notes.Notes"

    await phone.run(action="stop_app", package=NOTES)
    assert (await phone.run(action="current_app"))["package"] == "com.ish.launcher"

    failure = await phone.failure(action="start_app", package="com.none.such")
    assert failure.code is ErrorCode.NONZERO_EXIT


async def test_the_screen_wakes(phone: OnePhone) -> None:
    await phone.run(action="key", key="SLEEP")
    assert (await phone.run(action="status"))["screen"]["on"] is False

    await phone.run(action="wake")

    assert (await phone.run(action="status"))["screen"]["on"] is True


async def test_packages_are_listed_by_who_brought_them(phone: OnePhone) -> None:
    everything = (await phone.run(action="list_packages"))["packages"]
    third_party = (await phone.run(action="list_packages", kind="third_party"))["packages"]
    system = (await phone.run(action="list_packages", kind="system"))["packages"]

    assert "ai.perplexity.app.android" in third_party
    assert NOTES in system
    assert sorted(third_party + system) == everything


async def test_the_log_is_read_by_lines_and_by_tag(phone: OnePhone) -> None:
    await phone.run(action="stop_app", package=NOTES)

    last = await phone.run(action="logcat", lines=1)
    by_tag = await phone.run(action="logcat", filter=["ActivityManager:I"])

    assert last["lines"] == 1
    assert "Force stopping com.ish.notes" in last["log"]
    assert by_tag["log"] == last["log"]


async def test_the_screens_elements_are_listed_and_kept_as_a_document(phone: OnePhone) -> None:
    reading = await phone.read(action="ui_dump")

    [artifact] = reading.artifacts
    assert artifact.content_type == "application/xml"
    assert artifact.content.startswith(b"<hierarchy")
    assert reading.output["package"] == "com.ish.launcher"
    assert "Notes" in [element["text"] for element in reading.output["elements"]]


async def test_finding_tells_where_and_how_many(phone: OnePhone) -> None:
    by_text = await phone.run(action="find", selector={"text": "Notes"})
    by_id = await phone.run(action="find", selector={"id": "icon"})
    none = await phone.run(action="find", selector={"text": "Note"})
    contained = await phone.run(action="find", selector={"description_contains": "NOTE"})

    [element] = by_text["elements"]
    bounds = element["bounds"]
    assert element["center"] == {
        "x": (bounds["left"] + bounds["right"]) // 2,
        "y": (bounds["top"] + bounds["bottom"]) // 2,
    }
    assert by_id["count"] > 1
    assert none["count"] == 0
    assert contained["elements"] == by_text["elements"]


async def test_tapping_on_an_element_touches_its_middle(phone: OnePhone) -> None:
    output = await phone.run(action="tap_on", selector={"text": "Notes"})

    [tap] = phone.effects("tap")
    assert (tap["x"], tap["y"]) == (output["element"]["center"]["x"], output["element"]["center"]["y"])
    assert (await phone.run(action="current_app"))["package"] == NOTES


async def test_tapping_on_one_of_several_needs_its_index(phone: OnePhone) -> None:
    failure = await phone.failure(action="tap_on", selector={"id": "icon"})
    assert failure.code is ErrorCode.ELEMENT_NOT_FOUND
    assert "index" in failure.message
    assert phone.effects("tap") == []

    await phone.run(action="tap_on", selector={"id": "icon", "index": 0})
    assert (await phone.run(action="current_app"))["package"] == NOTES


async def test_an_element_that_stays_away_is_not_found_in_time(phone: OnePhone) -> None:
    failure = await phone.failure(action="wait_for", selector={"text": "nowhere"}, timeout_seconds=0.6)

    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.ELEMENT_NOT_FOUND
    assert failure.details["elements_on_screen"] > 0


async def test_waiting_ends_when_the_element_comes_or_goes(phone: OnePhone) -> None:
    assert (await phone.run(action="wait_for", selector={"text": "Notes"}))["count"] == 1
    await phone.run(action="start_app", package="com.android.settings")
    assert (await phone.run(action="wait_for", selector={"description": "Perplexity"}, gone=True))["count"] == 0


async def test_a_screen_that_never_rests_is_a_timeout_and_may_be_tried_again(phone: OnePhone) -> None:
    phone.device.control.change(ui_dump="never_idle")

    failure = await phone.failure(action="find", selector={"text": "Notes"}, timeout_seconds=0.6)

    assert isinstance(failure, Transient)
    assert failure.code is ErrorCode.TIMEOUT


async def test_a_batch_runs_in_order_and_answers_each(phone: OnePhone) -> None:
    reading = await phone.read(
        action="batch",
        actions=[
            {"action": "start_app", "package": NOTES},
            {"action": "text", "text": "milk"},
            {"action": "screenshot"},
            {"action": "current_app"},
        ],
    )

    results = reading.output["results"]
    assert [result["action"] for result in results] == ["start_app", "text", "screenshot", "current_app"]
    assert results[3]["package"] == NOTES
    assert [artifact.sha256 for artifact in reading.artifacts] == [results[2]["artifact"]["sha256"]]
    assert phone.note == "milk"


async def test_a_batch_stops_at_the_first_failure_and_tells_what_was_done(phone: OnePhone) -> None:
    failure = await phone.failure(
        action="batch",
        actions=[
            {"action": "getprop", "name": "ro.serialno"},
            {"action": "start_app", "package": "com.none.such"},
            {"action": "tap", "x": 1, "y": 2},
        ],
    )

    assert failure.code is ErrorCode.NONZERO_EXIT
    assert failure.message.startswith("actions.1 (start_app): ")
    assert failure.details["failed_action"] == 1
    assert [result["value"] for result in failure.details["results"]] == ["SIM1"]
    assert phone.effects("tap") == []


@pytest.mark.parametrize(
    "action", [{"action": "screenshot"}, {"action": "logcat", "lines": 900}], ids=lambda action: action["action"]
)
async def test_a_batch_whose_results_grow_too_large_ends_there(phone: OnePhone, action: dict[str, object]) -> None:
    phone.limit_bytes = 100_000
    for _ in range(900):
        phone.device.log.write("I", "test", "x" * 1000)

    failure = await phone.failure(action="batch", actions=[action] * 20)

    assert failure.code is ErrorCode.TRUNCATED
    assert 0 < failure.details["failed_action"] < 19
    assert len(failure.details["results"]) == failure.details["failed_action"]


async def test_a_phone_that_forbids_input_is_denied_without_an_effect(phone: OnePhone) -> None:
    phone.device.control.change(injects_input=False)

    failure = await phone.failure(action="tap", x=1, y=2)

    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.DENIED
    assert phone.effects() == []
