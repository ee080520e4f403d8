import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.android.fields import Selector
from workers.android.elements import NoScreen, Screen, read_screen_xml

XML = """UI hierchary dumped to: /x
<?xml version='1.0' encoding='UTF-8' standalone='yes' ?><hierarchy rotation="0">
<node index="0" text="" resource-id="" class="android.widget.FrameLayout" package="com.a" bounds="[0,0][720,1280]">
  <node text="First" resource-id="com.a:id/name" class="android.widget.TextView" package="com.a"
    content-desc="" clickable="false" enabled="true" bounds="[0,0][100,50]" />
  <node text="" resource-id="com.a:id/row" class="android.view.ViewGroup" package="com.a" enabled="true"
    clickable="true" bounds="[0,100][720,200]">
    <node text="Second &amp; 🙂" resource-id="com.a:id/name" class="android.widget.TextView" package="com.a"
      enabled="true" bounds="[0,100][100,150]" />
    <node text="" content-desc="Close" class="android.widget.ImageButton" package="com.a" clickable="true"
      enabled="false" bounds="[600,100][700,200]" />
  </node>
  <node text="Hidden" class="android.widget.TextView" package="com.a" bounds="[0,0][0,0]" />
  <node text="typed" class="android.widget.EditText" package="com.b" focused="true" enabled="true"
    bounds="[0,300][720,400]" />
</node></hierarchy>UI hierchary dumped to: /x
"""


@pytest.fixture
def screen() -> Screen:
    return read_screen_xml(XML.encode())


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        ({"text": "First"}, ["First"]),
        ({"text": "first"}, []),
        ({"text_contains": "FIR"}, ["First"]),
        ({"id": "name"}, ["First", "Second & 🙂"]),
        ({"id": "com.a:id/name"}, ["First", "Second & 🙂"]),
        ({"id": "com.b:id/name"}, []),
        ({"id": "ame"}, []),
        ({"id": "name", "index": 1}, ["Second & 🙂"]),
        ({"id": "name", "index": 2}, []),
        ({"class_name": "TextView"}, ["First", "Second & 🙂"]),
        ({"class_name": "android.widget.TextView", "text_contains": "🙂"}, ["Second & 🙂"]),
        ({"class_name": "View"}, []),
        ({"description": "Close"}, ["Close"]),
        ({"description_contains": "lo", "enabled": False}, ["Close"]),
        ({"description": "Close", "enabled": True}, []),
        ({"focused": True}, ["typed"]),
        ({"package": "com.b"}, ["typed"]),
        ({"text": "Hidden"}, []),
    ],
    ids=str,
)
def test_a_selector_finds_what_fits_all_of_it(screen: Screen, fields: dict[str, object], labels: list[str]) -> None:
    assert [element.label for element in screen.find(Selector.model_validate(fields))] == labels


def test_the_first_alternative_that_finds_anything_counts(screen: Screen) -> None:
    found = screen.find_first([Selector(text="nothing"), Selector(id="name"), Selector(text="typed")])

    assert [element.text for element in found] == ["First", "Second & 🙂"]
    assert screen.find_first([Selector(text="nothing")]) == []


def test_what_is_inside_an_element_is_found_and_read_in_order(screen: Screen) -> None:
    [row] = screen.find(Selector(id="row"))

    assert [one.label for one in screen.inside(row)] == ["", "Second & 🙂", "Close"]
    assert screen.labels([row]) == ["Second & 🙂", "Close"]
    assert [one.text for one in screen.find(Selector(id="name"), within=row)] == ["Second & 🙂"]


def test_an_element_inside_another_is_read_once(screen: Screen) -> None:
    assert screen.labels(screen.find(Selector(package="com.a"))) == ["First", "Second & 🙂", "Close", "typed"]


def test_the_app_in_front_and_the_size_are_known(screen: Screen) -> None:
    assert screen.package == "com.a"
    assert screen.size == (720, 1280)
    assert screen.find(Selector(description="Close"))[0].bounds.center == (650, 150)


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"ERROR: could not get idle state.\n",
        XML.encode()[:900],
        b"<hierarchy><node></hierarchy>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><hierarchy>&a;</hierarchy>',
        b'<hierarchy><!DOCTYPE x [<!ENTITY a "b">]>&a;</hierarchy>',
        b"<hierarchy>&lol;</hierarchy>",
    ],
)
def test_what_is_no_whole_tree_is_refused(printed: bytes) -> None:
    with pytest.raises(NoScreen):
        read_screen_xml(printed)


def test_bytes_that_are_no_text_are_replaced() -> None:
    screen = read_screen_xml(b'<hierarchy><node text="a\xffb" bounds="[0,0][9,9]" /></hierarchy>')

    assert screen.elements[0].text == "a\ufffdb"


def test_a_deep_tree_is_read() -> None:
    depth = 5000
    xml = '<node bounds="[0,0][9,9]">' * depth + "</node>" * depth

    assert read_screen_xml(f"<hierarchy>{xml}</hierarchy>".encode()).elements[-1].depth == depth - 1


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_a_phone_prints_is_read_or_refused(printed: bytes) -> None:
    try:
        read_screen_xml(b"<hierarchy>" + printed + b"</hierarchy>")
    except NoScreen:
        return
