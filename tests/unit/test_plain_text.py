"""Text that others gave is shown as text: nothing in it steers a terminal, and rich reads no markup in it."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from contracts.plain_text import plain
from contracts.settings import stop
from ops.cli.terminal import print_table, table

HOSTILE = "[/x] [bold]b[/] :smile: \x1b[31mred\x07\r\x9b2J \u202eevil\u2069 \ud800 \x00 \u2028"


def printed(headers: tuple[str, ...], rows: list[tuple[object, ...]], width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, emoji=False, highlight=False).print(table(headers, rows))
    return out.getvalue()


def test_controls_and_escapes_are_written_out() -> None:
    assert plain(HOSTILE) == (
        "[/x] [bold]b[/] :smile: \\x1b[31mred\\x07\\r\\x9b2J \\u202eevil\\u2069 \\ud800 \\x00 \\u2028"
    )


def test_letters_of_every_script_and_emoji_stay_as_they_are() -> None:
    text = "Grüße, 中文, नमस्ते, \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645, 👩\u200d💻"

    assert plain(text) == text


@pytest.mark.parametrize(("lines", "shown"), [(True, "a\n\tb"), (False, "a\\n\\tb")])
def test_line_ends_are_kept_only_where_several_lines_are_meant(*, lines: bool, shown: str) -> None:
    assert plain("a\n\tb", lines=lines) == shown


def test_a_table_shows_markup_as_text() -> None:
    shown = printed(("id", "label"), [("1", "[/x]"), ("2", HOSTILE)])

    assert "1   [/x]" in shown
    assert "[bold]b[/] :smile: \\x1b[31mred" in shown
    assert "\x1b" not in shown


def test_a_table_keeps_within_80_columns_whatever_is_in_it() -> None:
    rows: list[tuple[object, ...]] = [("0" * 36, "中文" * 60, "x" * 300, "word " * 60, "https://" + "a" * 90)]

    shown = printed(("id", "one", "two", "three", "four"), rows)

    assert max(cell_len(line) for line in shown.splitlines()) <= 80
    assert shown.count("中") == shown.count("文") == 60  # folded, not cut


def test_an_id_is_never_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    identity = "01890a5d-ac96-774b-bcce-b302099a8057"

    print_table(("text", "id", "spare"), [("中" * 90, identity, "left out " * 20)], whole={"id"}, spare=("spare",))

    shown = capsys.readouterr().out
    assert identity in shown
    assert "left out" not in shown
    assert max(cell_len(line) for line in shown.splitlines()) <= 80


def test_an_error_is_one_line_whatever_another_system_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        stop(f"it said {HOSTILE}\nand more")

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("ish: it said [/x] [bold]b[/]")
    assert "\x1b" not in said
