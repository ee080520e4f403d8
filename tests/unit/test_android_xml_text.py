from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.android.elements import read_screen_xml
from workers.android.xml_text import readable


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (b"a&#0;b", "a\ufffdb"),
        (b"a&#x0;b&#xB;&#xfffe;", "a\ufffdb\ufffd\ufffd"),
        (b"a\x00b\x01\x1f", "a\ufffdb\ufffd\ufffd"),
        (b"&#55357;&#56832;", "😀"),
        (b"&#xD83D;&#xDE00;", "😀"),
        (b"&#55357; &#56832;", "\ufffd \ufffd"),
        (b"\xed\xa0\xbd\xed\xb8\x80", "😀"),
        (b"\xed\xa0\xbd", "\ufffd"),
        ("\uffff\ufffe".encode(), "\ufffd\ufffd"),
        (b"&#99999999999;&#x110000;", "\ufffd\ufffd"),
        (b"&#10;&#9;&#34;&amp;&#128512;", '\n\t"&😀'),
        (b"&#000000000065;", "A"),
        ("日本 🙂".encode(), "日本 🙂"),
    ],
)
def test_what_xml_forbids_is_replaced_and_the_rest_is_kept(written: bytes, text: str) -> None:
    screen = read_screen_xml(b'<hierarchy><node text="' + written + b'" bounds="[0,0][9,9]" /></hierarchy>')

    assert screen.elements[0].text == text


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=4), st.integers(0, 0x200000).map(lambda code: b"&#%d;" % code)), max_size=20)
)
def test_no_character_makes_a_document_unreadable(pieces: list[bytes]) -> None:
    kept = b"".join(pieces).replace(b"<", b"").replace(b">", b"")
    text = b"".join(piece for piece in pieces if piece.startswith(b"&#"))
    assert ET.fromstring(b"<a>" + readable(text) + b"</a>").tag == "a"  # noqa: S314  # made here

    assert readable(readable(kept)) == readable(kept)


def test_a_turned_screen_says_so() -> None:
    assert read_screen_xml(b'<hierarchy rotation="1"></hierarchy>').rotation == 1
    assert read_screen_xml(b'<hierarchy rotation="x"></hierarchy>').rotation == 0
