import asyncio

import pytest

from contracts.errors import ErrorCode, Indeterminate, Permanent, Transient
from ops.simulators.phone.apps.perplexity import PACKAGE, SOURCES, answer_to
from ops.simulators.phone.lab import until
from tests.integration.one_phone import NOTES, OnePhone


@pytest.mark.parametrize("shift_px", [0, 300, -100])
async def test_asking_returns_the_apps_whole_answer_wherever_it_is_drawn(phone: OnePhone, shift_px: int) -> None:
    phone.device.control.change(shift_px=shift_px)
    question = "What is a queue? 列とは何か 🙂"

    output = await phone.run(action="flow", name="perplexity.ask", inputs={"question": question})

    assert output["flow"] == "perplexity.ask"
    assert output["answer"] == answer_to(question)
    assert output["sources"][0] == {"title": SOURCES[0].title, "url": SOURCES[0].url}
    assert [effect["text"] for effect in phone.effects("text")] == [question]


async def test_every_question_is_asked_in_a_new_thread(phone: OnePhone) -> None:
    for question in ("first", "second"):
        output = await phone.run(action="flow", name="perplexity.ask", inputs={"question": question})
        assert output["answer"] == answer_to(question)


async def test_a_question_of_several_lines_is_asked_as_one(phone: OnePhone) -> None:
    output = await phone.run(action="flow", name="perplexity.ask", inputs={"question": "one\ntwo\r\n three"})

    assert output["answer"] == answer_to("one two three")


async def test_searching_leaves_the_answer_on_the_screen(phone: OnePhone) -> None:
    assert await phone.run(action="flow", name="perplexity.search", inputs={"query": "rabbits"}) == {
        "flow": "perplexity.search"
    }

    async with asyncio.timeout(60):
        while True:
            texts = (await phone.run(action="flow", name="perplexity.text"))["texts"]
            if SOURCES[0].url in texts:
                break
    assert answer_to("rabbits") in texts


async def test_the_app_is_brought_to_the_front_and_pictured(phone: OnePhone) -> None:
    await phone.run(action="start_app", package=NOTES)

    reading = await phone.read(action="flow", name="perplexity.screenshot")

    assert (await phone.run(action="current_app"))["package"] == PACKAGE
    assert [artifact.sha256 for artifact in reading.artifacts] == [reading.output["artifact"]["sha256"]]


async def test_an_app_in_front_is_not_started_again(phone: OnePhone) -> None:
    await phone.run(action="flow", name="perplexity.open")
    await phone.run(action="flow", name="perplexity.open")

    assert len(phone.effects("start_app")) == 1


async def test_a_missing_app_is_a_failed_flow_that_names_its_step(phone: OnePhone) -> None:
    phone.device.remove_app(PACKAGE)

    failure = await phone.failure(action="flow", name="perplexity.open")

    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.FLOW_FAILED
    assert failure.details["flow"] == "perplexity.open"
    assert failure.details["step"] == 2
    assert failure.details["does"] == "bring_to_front True"
    assert failure.details["cause"] == "nonzero_exit"


async def test_a_missing_element_is_named_with_its_selectors_and_nothing_of_the_screen(phone: OnePhone) -> None:
    phone.device.control.change(shift_px=1000)  # the field to ask in is drawn below the screen's end

    failure = await phone.failure(action="flow", name="perplexity.search", inputs={"query": "secret"})

    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.ELEMENT_NOT_FOUND
    assert failure.details["element"] == "field"
    assert {"id": "ask_input", "class_name": "EditText"} in failure.details["selectors"]
    assert failure.details["elements_on_screen"] > 0
    assert "Where knowledge begins" not in str(failure.details) + failure.message


async def test_text_that_the_phone_cannot_type_fails_the_flow_before_it_asks(phone: OnePhone) -> None:
    phone.device.remove_app("com.android.adbkeyboard")

    failure = await phone.failure(action="flow", name="perplexity.ask", inputs={"question": "日本"})

    assert failure.code is ErrorCode.FLOW_FAILED
    assert failure.details["cause"] == "unsupported_text_input"


async def test_a_phone_that_goes_before_anything_was_asked_may_be_tried_again(phone: OnePhone) -> None:
    phone.device.control.change(slow_seconds={"uiautomator": 1000})
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(phone.failure(action="flow", name="perplexity.ask", inputs={"question": "q"}))
        await until(lambda: phone.device.running > 0)
        phone.device.control.change(present=False)

    assert isinstance(asking.result(), Transient)


async def test_a_phone_that_goes_after_asking_leaves_it_indeterminate(phone: OnePhone) -> None:
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(phone.failure(action="flow", name="perplexity.ask", inputs={"question": "q"}))
        await until(lambda: bool(phone.effects("text")))
        phone.device.control.change(present=False)

    assert isinstance(asking.result(), Indeterminate)


@pytest.mark.parametrize(
    ("name", "inputs", "sentence"),
    [
        ("perplexity.nothing", {}, "perplexity.ask"),
        ("other.ask", {}, "perplexity.ask"),
        ("perplexity.ask", {}, "question"),
        ("perplexity.ask", {"question": "q", "more": "m"}, "question"),
        ("perplexity.open", {"question": "q"}, "none"),
    ],
)
async def test_an_unknown_flow_or_input_is_refused_with_what_there_is(
    phone: OnePhone, name: str, inputs: dict[str, str], sentence: str
) -> None:
    failure = await phone.failure(action="flow", name=name, inputs=inputs)

    assert failure.code is ErrorCode.INVALID_PAYLOAD
    assert sentence in failure.message
    assert phone.effects() == []
