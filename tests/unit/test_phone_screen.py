from xml.etree import ElementTree as ET

import pytest

from ops.simulators.phone.apps import preinstalled
from ops.simulators.phone.apps.perplexity import GROWING_SECONDS, PACKAGE, SOURCES, THINKING_SECONDS, answer_to
from ops.simulators.phone.screen import Screen, Touch
from ops.simulators.phone.ui_dump import dump
from ops.simulators.phone.views import HEIGHT, Bounds, View

QUESTION = "What is RabbitMQ? 🐇 <b>"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def screen(clock: Clock) -> Screen:
    return Screen(preinstalled(facts="the facts", keyboard=True), clock=clock)


def view(screen: Screen, **wanted: str) -> View:
    [found] = [
        each for each in screen.root().walk() if all(getattr(each, name) == value for name, value in wanted.items())
    ]
    return found


def tap(screen: Screen, target: View) -> None:
    x, y = (target.bounds.left + target.bounds.right) // 2, (target.bounds.top + target.bounds.bottom) // 2
    screen.touch(Touch(x, y, x, y))


def open_app(screen: Screen, name: str) -> None:
    screen.press("HOME")
    tap(screen, view(screen, text=name))


def texts(screen: Screen) -> list[str]:
    return [each.text for each in screen.root().walk() if each.text]


def test_an_icon_opens_its_app_and_home_and_back_leave_it(screen: Screen) -> None:
    for key in ("HOME", "BACK"):
        open_app(screen, "Notes")
        assert screen.app.package == "com.ish.notes"
        screen.press(key)
        assert screen.app.package == "com.ish.launcher"


def test_text_goes_only_into_a_field_that_has_the_focus(screen: Screen) -> None:
    open_app(screen, "Perplexity")
    screen.type_text("lost")
    tap(screen, view(screen, kind="android.widget.EditText"))
    screen.type_text("kept")

    assert view(screen, kind="android.widget.EditText").text == "kept"
    assert view(screen, kind="android.widget.EditText").focused


def test_an_empty_field_shows_its_hint(screen: Screen) -> None:
    open_app(screen, "Notes")

    field = view(screen, resource_id="com.ish.notes:id/editor")
    assert (field.text, field.hint, field.focused) == ("Write a note", True, True)


def test_keys_edit_at_the_cursor(screen: Screen) -> None:
    open_app(screen, "Notes")
    screen.type_text("abc")
    for key in ("DPAD_LEFT", "DEL", "X", "SPACE", "MOVE_HOME", "FORWARD_DEL", "1", "MOVE_END", "ENTER"):
        screen.press(key)

    assert screen.typed["com.ish.notes"] == "1x c\n"


def test_what_is_selected_is_replaced_or_deleted(screen: Screen) -> None:
    open_app(screen, "Notes")
    screen.type_text("old")
    screen.select_all()
    screen.type_text("new")
    assert screen.typed["com.ish.notes"] == "new"

    screen.touch(Touch(300, 600, 300, 600, duration_ms=800))
    screen.press("DEL")
    assert screen.typed["com.ish.notes"] == ""


def test_a_screen_that_is_off_takes_nothing(screen: Screen) -> None:
    open_app(screen, "Notes")
    screen.press("SLEEP")
    screen.type_text("x")
    screen.press("HOME")
    screen.press("WAKEUP")

    assert screen.app.package == "com.ish.notes"
    assert "com.ish.notes" not in screen.typed


def test_settings_scroll_and_switch_and_show_the_phone(screen: Screen) -> None:
    open_app(screen, "Settings")
    assert "About phone" not in texts(screen)
    tap(screen, view(screen, text="Bluetooth"))
    assert [each.checked for each in screen.root().walk() if each.checkable] == [True, True]

    screen.touch(Touch(300, 1100, 300, 200, 300))
    tap(screen, view(screen, text="About phone"))
    assert "the facts" in texts(screen)

    screen.press("BACK")
    assert "Location" in texts(screen)


@pytest.mark.parametrize("with_enter", [True, False])
def test_a_question_is_thought_about_answered_in_growing_pieces_and_given_sources(
    screen: Screen, clock: Clock, *, with_enter: bool
) -> None:
    open_app(screen, "Perplexity")
    assert not view(screen, description="Submit").enabled
    tap(screen, view(screen, kind="android.widget.EditText"))
    screen.commit_text(QUESTION)
    if with_enter:
        screen.press("ENTER")
    else:
        tap(screen, view(screen, description="Submit"))

    assert view(screen, resource_id=f"{PACKAGE}:id/query_text").text == QUESTION
    assert "Thinking…" in texts(screen)
    assert not any(each.resource_id.endswith("answer_text") for each in screen.root().walk())

    clock.now += THINKING_SECONDS + 0.001
    answers = []
    for _ in range(5):
        answers.append(view(screen, resource_id=f"{PACKAGE}:id/answer_text").text)
        assert "Sources" not in texts(screen)
        clock.now += GROWING_SECONDS / 5
    clock.now += 0.001
    complete = view(screen, resource_id=f"{PACKAGE}:id/answer_text").text
    assert [len(answer) for answer in answers] == sorted({len(answer) for answer in answers})
    assert all(complete.startswith(answer) for answer in answers)
    assert complete == answer_to(QUESTION)
    assert {source.url for source in SOURCES} <= set(texts(screen))
    assert "Thinking…" not in texts(screen)

    tap(screen, view(screen, text=SOURCES[0].url))
    assert (screen.app.package, screen.typed[PACKAGE]) == ("com.ish.browser", "")
    assert f"Simulated page of {SOURCES[0].url}" in texts(screen)


@pytest.mark.parametrize("with_key", [True, False])
def test_back_leaves_the_answer_and_ending_the_app_forgets_it(screen: Screen, clock: Clock, *, with_key: bool) -> None:
    open_app(screen, "Perplexity")
    tap(screen, view(screen, kind="android.widget.EditText"))
    screen.commit_text(QUESTION)
    screen.press("ENTER")
    clock.now += 10

    if with_key:
        screen.press("BACK")
    else:
        screen.end(PACKAGE)
        screen.start(PACKAGE, None)

    assert screen.app.package == PACKAGE
    assert QUESTION not in texts(screen)


def test_a_line_feed_from_the_keys_ends_a_field_of_one_line(screen: Screen) -> None:
    open_app(screen, "Perplexity")
    tap(screen, view(screen, kind="android.widget.EditText"))
    screen.type_text("first\nsecond")

    assert view(screen, resource_id=f"{PACKAGE}:id/query_text").text == "first"
    assert screen.typed[PACKAGE] == ""


def test_a_shifted_layout_is_elsewhere_and_whole(screen: Screen, clock: Clock) -> None:
    open_app(screen, "Perplexity")
    unshifted = view(screen, kind="android.widget.EditText").bounds
    screen.shift_px = 300
    assert view(screen, kind="android.widget.EditText").bounds == unshifted.moved(300)

    screen.touch(Touch(unshifted.left + 9, unshifted.top + 9, unshifted.left + 9, unshifted.top + 9))
    assert screen.field() is None
    tap(screen, view(screen, kind="android.widget.EditText"))
    screen.type_text("q\n")
    clock.now += 10
    assert {source.url for source in SOURCES} <= set(texts(screen))
    assert all(each.bounds.bottom <= HEIGHT for each in screen.root().walk())

    screen.press("HOME")
    assert view(screen, text="Notes").bounds == Bounds(60, 220, 240, 400)


def test_the_dump_is_xml_with_androids_attributes(screen: Screen) -> None:
    open_app(screen, "Notes")
    screen.commit_text("<&\"'>\n\t🙂日本\x01")

    document = dump(screen.root(), package=screen.app.package)

    root = ET.fromstring(document)  # noqa: S314  # our own document
    assert (root.tag, root.get("rotation")) == ("hierarchy", "0")
    editor = next(node for node in root.iter("node") if node.get("resource-id") == "com.ish.notes:id/editor")
    assert editor.get("text") == "<&\"'>\n\t🙂日本."
    assert editor.get("bounds") == "[40,160][680,1184]"
    assert list(editor.attrib) == [
        *("index", "text", "resource-id", "class", "package", "content-desc", "checkable", "checked", "clickable"),
        *("enabled", "focusable", "focused", "scrollable", "long-clickable", "password", "selected", "bounds"),
    ]
    assert editor.get("focused") == editor.get("clickable") == editor.get("long-clickable") == "true"
    assert len(document.splitlines()) == 1
