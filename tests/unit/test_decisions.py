"""Decisions: one page each, numbered once, and what points at one finds it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "ops/decisions").glob("*.md"))


def test_each_decision_has_its_own_number_in_its_name_and_its_title() -> None:
    numbers = [int(page.name[:4]) for page in PAGES]

    assert numbers == list(range(1, len(PAGES) + 1))
    for number, page in zip(numbers, PAGES, strict=True):
        assert page.read_text(encoding="utf-8").startswith(f"# {number}. "), page.name


def test_what_points_at_a_decision_finds_it() -> None:
    sources = [ROOT / "README.md", *PAGES, *(ROOT / "ops/docs").glob("*.md")]
    sources += [path for room in ("contracts", "gateway", "workers", "ops") for path in (ROOT / room).rglob("*.py")]
    pages = {page.name for page in PAGES}

    for source in sources:
        for name in re.findall(r"decisions/(\d{4}[a-z0-9-]*\.md)", source.read_text(encoding="utf-8")):
            assert name in pages, f"{source.name} names {name}"
