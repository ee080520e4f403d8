"""What `ops/docs` says of the code is there: every file, and every test that a rule names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "ops" / "docs").glob("*.md"))
_FILE = re.compile(r"`((?:contracts|gateway|workers|ops|tests)/[A-Za-z0-9_/.]+\.(?:py|sql|lua|md))`")
_TEST = re.compile(r"`(tests/[a-z_/]+\.py)::([a-z0-9_]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = _FILE.findall(page.read_text(encoding="utf-8"))

    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_rule_of_the_protocol_names_tests_that_are_there() -> None:
    text = (ROOT / "ops" / "docs" / "architecture.md").read_text(encoding="utf-8")
    rules = re.split(r"^\d+\. ", text.partition("## Claim, lease")[2].partition("\n## ")[0], flags=re.MULTILINE)[1:]

    assert len(rules) == 14
    for rule in rules:
        named = _TEST.findall(rule)
        assert named, rule
        for file, test in named:
            assert re.search(rf"^(?:async )?def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (
                test
            )


def test_every_state_of_a_command_is_in_the_table() -> None:
    from contracts.results import State  # noqa: PLC0415  # only this test needs it

    text = (ROOT / "ops" / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## A command's states")[2].partition("\n## ")[0]

    assert [state.value for state in State if f"`{state.value}`" not in table] == []


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    text = (ROOT / "ops" / "docs" / "glossary.md").read_text(encoding="utf-8")
    groups = [re.findall(r"^- \*\*(.+?)\*\*", group, re.MULTILINE) for group in text.split("\n## ")[1:]]

    assert [group for group in groups if group != sorted(group, key=str.casefold)] == []
    words = [word for group in groups for word in group]
    assert len(words) == len(set(words))
