"""Whatever a body holds, what is said of it is ours: pydantic's sentences never leave."""

from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from contracts.commands import KINDS, InvalidPayload, decode_payload
from contracts.errors import Permanent
from contracts.faults import OTHER, faults_of, rule_of

FOREIGN = ("Input should", "Field required", "Unable to", "valid ", "Value error", "Extra inputs", "pydantic")
NAMES = sorted(
    {
        *(name for kind in ("relay", "ai.send") for name in KINDS[kind].payload.model_fields),
        *("action", "command", "actions", "x", "y", "key", "text", "selector", "argv", "name", "inputs", "device"),
    }
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "tap", "batch", "shell", "user", "2026-01-01T00:00:00Z", "shell input tap 1 x"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner),
    max_leaves=8,
)


def rules(kind: str, document: Any) -> list[str]:
    try:
        decode_payload(KINDS[kind], orjson.dumps(document))
    except InvalidPayload as invalid:
        return [one["rule"] for one in invalid.details["problems"]]
    except Permanent as refused:
        return [refused.message]
    return []


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(document=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6) | VALUES)
def test_no_body_is_told_of_in_words_that_are_not_ours(kind: str, document: Any) -> None:
    for rule in rules(kind, document):
        assert not any(words in rule for words in FOREIGN), rule
        assert rule != OTHER
        assert "\n" not in rule


@pytest.mark.parametrize("error", get_args(ErrorType))
def test_every_error_of_pydantic_has_a_rule_of_ours(error: str) -> None:
    context = {
        **dict.fromkeys(("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length"), 2),
        **dict.fromkeys(("expected", "expected_tags"), "'a' or 'b'"),
        "pattern": "^a$",
    }

    rule = rule_of({"type": error, "msg": "Value error, must be so", "ctx": context, "loc": ()})

    assert rule.startswith(("must", "is"))
    assert not any(words in rule for words in FOREIGN), rule


class Inner(BaseModel):
    size: int


class Outer(BaseModel):
    one: Inner | bool
    many: list[Inner] = []


def faults(document: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(document)
    errors = caught.value.errors(include_url=False, include_input=False)
    return [(one["field"], one["rule"]) for one in faults_of(errors, document)]


def test_forms_of_one_field_are_one_fault_and_the_meant_one_is_told() -> None:
    assert faults({"one": "x"}) == [("one", "must be an object or must be true or false")]
    assert faults({"one": {}}) == [("one.size", "is required")]
    assert faults({"one": True, "many": [{"size": "x"}, 5]}) == [
        ("many.0.size", "must be a whole number"),
        ("many.1", "must be an object"),
    ]
