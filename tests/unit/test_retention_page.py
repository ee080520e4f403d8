"""The page on retention says what the settings say."""

import re
from pathlib import Path

from contracts.settings import Settings

PAGE = Path(__file__).parents[2] / "ops/docs/retention.md"
_SETTING = re.compile(r"`ISH_([A-Z_]+)`")


def lines() -> dict[str, list[str]]:
    """What the table says of each setting: how long, in words."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and (setting := _SETTING.search(cells[2])):
            found.setdefault(setting[1].lower(), []).append(cells[1])
    return found


def test_every_retention_has_its_line_and_every_line_its_setting() -> None:
    retentions = {name for name in Settings.model_fields if name.endswith("retention_days")}

    assert retentions <= set(lines())
    assert set(lines()) <= set(Settings.model_fields)


def test_the_days_are_the_defaults() -> None:
    for name, said in lines().items():
        default = Settings.model_fields[name].default
        days = default if name.endswith("_days") else default / 86400
        for words in said:
            found = re.search(r"(\d+) days?\b", words)
            assert (words == "as their commands") or (found and int(found[1]) == days), (name, words)
