import tomllib
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.android.actions import SingleAction
from contracts.errors import CommandError, ErrorCode, Permanent
from workers.android.elements import Element, NoScreen, Screen, read_screen_xml
from workers.android.flows import catalog
from workers.android.flows.collecting import Collection
from workers.android.flows.engine import Engine
from workers.android.flows.steps import App
from workers.android.readings import Reading

PACKAGE = "com.a.b"
HEAD = f"""
package = "{PACKAGE}"
[elements]
field = [{{ id = "new_field" }}, {{ class_name = "EditText" }}]
button = [{{ text = "Go" }}]
answer = [{{ id = "answer" }}]
busy = [{{ id = "busy" }}]
row = [{{ id = "row" }}]
title = [{{ id = "title" }}]
link = [{{ text_contains = "://" }}]
"""


def app(steps: str, *, inputs: str = "[]") -> App:
    return App.model_validate(tomllib.loads(f'{HEAD}\n[flows.it]\nabout = "x"\ninputs = {inputs}\nsteps = {steps}'))


def node(text: str = "", *, id: str = "", kind: str = "TextView", inside: str = "", more: str = "") -> str:  # noqa: A002  # Android's name
    resource = f"{PACKAGE}:id/{id}" if id else ""
    return (
        f'<node text="{text}" resource-id="{resource}" class="android.widget.{kind}" package="{PACKAGE}" enabled="true"'
        f' bounds="[0,0][100,200]" {more}>{inside}</node>'
    )


def screen(*nodes: str) -> Screen:
    return read_screen_xml(f"<hierarchy>{''.join(nodes)}</hierarchy>".encode())


class ScriptedStage:
    """Shows one screen after the other, the last one for ever, and notes what it is asked to do."""

    def __init__(self, *screens: Screen | None, seconds_left: float = 60) -> None:
        self._screens = list(screens)
        self.seconds_left = seconds_left
        self.done: list[str] = []

    async def run(self, action: SingleAction) -> Reading:
        self.done.append(str(action.model_dump(exclude={"timeout_seconds"})))
        if action.action == "start_app":
            self._screens = [screen(node("started"))]
        return Reading({"ran": action.action})

    async def look(self) -> Screen:
        shown = self._screens.pop(0) if len(self._screens) > 1 else self._screens[0]
        if shown is None:
            raise NoScreen("it moves")
        return shown

    async def tap(self, element: Element) -> None:
        self.done.append(f"tap {element.label}")


async def work(flow_app: App, stage: ScriptedStage, **inputs: str) -> dict[str, Any]:
    return (await Engine("test.it", flow_app, flow_app.flows["it"], inputs, stage).run()).output


async def failure_of(flow_app: App, stage: ScriptedStage, **inputs: str) -> CommandError:
    with pytest.raises(CommandError) as caught:
        await work(flow_app, stage, **inputs)
    return caught.value


async def test_an_element_is_tapped_once_it_is_there() -> None:
    stage = ScriptedStage(screen(), None, screen(node("x")), screen(node("Go")))

    await work(app('[{ tap = "button" }]'), stage)

    assert stage.done == ["tap Go"]


async def test_the_second_alternative_is_used_where_the_first_finds_nothing() -> None:
    stage = ScriptedStage(screen(node("old", kind="EditText")))

    await work(app('[{ tap = "field" }]'), stage)

    assert stage.done == ["tap old"]


async def test_a_missing_element_is_an_error_unless_it_is_optional() -> None:
    optional = ScriptedStage(screen(node("secret")))
    await work(app('[{ tap = "button", within_seconds = 0.1, optional = true }]'), optional)

    failure = await failure_of(
        app('[{ press = "BACK" }, { tap = "button", within_seconds = 0.1 }]'), ScriptedStage(screen(node("secret")))
    )

    assert optional.done == []
    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.ELEMENT_NOT_FOUND
    assert failure.details == {
        "flow": "test.it",
        "step": 2,
        "does": "tap button",
        "element": "button",
        "selectors": [{"text": "Go"}],
        "elements_on_screen": 1,
    }
    assert "secret" not in failure.message


async def test_a_disabled_button_is_waited_for() -> None:
    disabled = node("Go").replace('enabled="true"', 'enabled="false"')
    stage = ScriptedStage(screen(disabled), screen(disabled), screen(node("Go")))

    await work(app('[{ tap = "button" }]'), stage)

    assert stage.done == ["tap Go"]


async def test_an_input_is_typed_as_one_line() -> None:
    stage = ScriptedStage(screen())

    await work(app('[{ type = "question" }]', inputs='["question"]'), stage, question="a\n b\t{c}")

    assert stage.done == ["{'action': 'text', 'text': 'a b {c}'}"]


async def test_the_app_is_started_unless_it_is_in_front() -> None:
    there, elsewhere = ScriptedStage(screen(node("x"))), ScriptedStage(screen())
    for stage in (there, elsewhere):
        await work(app("[{ bring_to_front = true }]"), stage)

    assert there.done == []
    assert elsewhere.done == ["{'action': 'start_app', 'package': 'com.a.b'}"]


async def test_waiting_ends_when_the_element_goes() -> None:
    stage = ScriptedStage(screen(node(id="busy")), screen(node(id="busy")), screen())

    await work(app('[{ wait_for = "busy", gone = true }]'), stage)
    failure = await failure_of(
        app('[{ wait_for = "busy", gone = true, within_seconds = 0.1 }]'), ScriptedStage(screen(node(id="busy")))
    )

    assert "did not go away" in failure.message


async def test_an_answer_is_stable_when_it_grows_no_more_and_nothing_says_that_it_will() -> None:
    grown = node("one two", id="answer")
    stage = ScriptedStage(
        screen(), screen(node("one", id="answer")), None, screen(grown, node(id="busy")), screen(grown), screen(grown)
    )
    steps = '[{ wait_until_stable = "answer", unless = "busy", for_seconds = 0.2 }, { capture = { a = { element = "answer" } } }]'

    assert await work(app(steps), stage) == {"flow": "test.it", "a": "one two"}


async def test_an_answer_that_never_rests_is_an_error() -> None:
    stage = ScriptedStage(screen(node("a", id="answer"), node(id="busy")))
    steps = '[{ wait_until_stable = "answer", unless = "busy", for_seconds = 0.1, within_seconds = 0.7 }]'

    failure = await failure_of(app(steps), stage)

    assert failure.code is ErrorCode.ELEMENT_NOT_FOUND
    assert "did not come to rest" in failure.message


async def test_texts_and_records_are_captured() -> None:
    first = node(id="row", inside=node("A", id="title") + node("https://a"))
    second = node(id="row", inside=node("B", id="title"))
    empty = node(id="row")
    steps = (
        '[{ capture = { rows = { element = "row", as = "records", fields = { name = "title", url = "link" } },'
        ' all = { element = "row", as = "texts" } } }]'
    )

    output = await work(app(steps), ScriptedStage(screen(first, second, empty)))

    assert output["rows"] == [{"name": "A", "url": "https://a"}, {"name": "B", "url": None}]
    assert output["all"] == ["A", "https://a", "B"]


async def test_scrolling_ends_when_it_brings_nothing_new() -> None:
    scrollable = 'scrollable="true"'
    first = screen(node("one", id="answer", more=scrollable), node("two", id="answer"))
    second = screen(node("two", id="answer", more=scrollable), node("three", id="answer"))
    stage = ScriptedStage(first, second, second)

    output = await work(app('[{ capture = { a = { element = "answer" } }, scrolls = 9 }]'), stage)

    assert output["a"] == "one\ntwo\nthree"
    assert [done.count("swipe") for done in stage.done] == [1, 1]


async def test_a_screen_that_does_not_scroll_is_not_swiped() -> None:
    stage = ScriptedStage(screen(node("one", id="answer")))

    await work(app('[{ capture = { a = { element = "answer" } }, scrolls = 9 }]'), stage)

    assert stage.done == []


async def test_what_an_action_answers_is_part_of_the_flows_answer() -> None:
    assert (await work(app('[{ run = { action = "battery" } }]'), ScriptedStage(screen())))["ran"] == "battery"


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ('[{ tap = "nothing" }]', "no element 'nothing'"),
        ('[{ wait_until_stable = "answer", unless = "nothing" }]', "no element 'nothing'"),
        ('[{ type = "question" }]', "no input 'question'"),
        ('[{ capture = { a = { element = "answer", as = "records" } } }]', "fields"),
        ('[{ run = { action = "tap", x = -1, y = 0 } }]', "greater than or equal to 0"),
        ("[]", "at least 1 item"),
        ('[{ jump = "field" }]', "Extra inputs"),
    ],
)
def test_a_flow_file_that_breaks_a_rule_is_refused(steps: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        app(steps)


def test_every_flow_file_that_comes_with_the_product_is_sound() -> None:
    assert set(catalog.apps()["perplexity"].flows) == {"open", "search", "screenshot", "text", "ask"}


@pytest.mark.parametrize(
    ("views", "answer"),
    [
        ([[1, 2, 3], [2, 3, 4], [4, 5]], [1, 2, 3, 4, 5]),
        ([[1, 2], [1, 2]], [1, 2]),
        ([[1], [2], [3]], [1, 2, 3]),
        ([[1, 1, 2], [1, 2, 2]], [1, 1, 2, 2]),
        ([[], [1]], [1]),
    ],
)
def test_views_that_overlap_are_put_together(views: list[list[int]], answer: list[int]) -> None:
    collection = Collection("texts")
    for view in views:
        collection.add(view)

    assert collection.answer() == answer
