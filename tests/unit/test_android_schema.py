"""The schema of every action says all of its fields: a rule that is added to it takes none away."""

import json
from pathlib import Path
from typing import Any

import pytest

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "contracts" / "documents" / "android.execute.v1.schema.json").read_text()
)
ACTIONS = [name for name, one in SCHEMA["$defs"].items() if "action" in one.get("required", [])]


def test_there_are_actions() -> None:
    assert len(ACTIONS) >= 29


@pytest.mark.parametrize("name", ACTIONS)
def test_an_actions_schema_has_every_field(name: str) -> None:
    action = SCHEMA["$defs"][name]

    assert action["properties"]["action"].get("const") or action["properties"]["action"].get("enum")
    assert set(action["required"]) <= set(action["properties"])
    assert all(set(field) - {"not"} for field in action["properties"].values())
