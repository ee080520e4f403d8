"""What is wrong with a value, in this product's own words: which field, and the rule that it breaks.

Pydantic's own sentences change between its releases, name its types and repeat what was given; none of them leaves here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticCustomError

MAX_FAULTS = 20
_MAX_NAME_CHARACTERS = 100
_FAULT = "fault"
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'")

_TIME = "must be a time such as 2026-01-31T12:00:00Z"
_NUMBER = "must be a number"
_WHOLE = "must be a whole number"
_TRUTH = "must be true or false"
_ARRAY = "must be an array"
_OBJECT = "must be an object"
_UUID = "must be a UUID"
_RULES = {
    "missing": "is required",
    "union_tag_not_found": "is required",
    "extra_forbidden": "is not known here",
    "json_invalid": "must be one JSON document",
    "json_type": "must be one JSON document",
    "string_type": "must be text",
    "string_unicode": "must be UTF-8",
    "string_pattern_mismatch": "must match {pattern}",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "decimal_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "none_required": "must be null",
    "list_type": _ARRAY,
    "tuple_type": _ARRAY,
    "set_type": _ARRAY,
    "frozen_set_type": _ARRAY,
    "dict_type": _OBJECT,
    "mapping_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dataclass_type": _OBJECT,
    "invalid_key": "must have text as its names",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "uuid_type": _UUID,
    "uuid_parsing": _UUID,
    "uuid_version": _UUID,
    "timezone_aware": "must have a time zone",
}
_MEMBERS = {"string_too_short": "character", "string_too_long": "character", "too_short": "entry", "too_long": "entry"}
_PLURALS = {"character": "characters", "entry": "entries"}
_CHOICES = {"literal_error": "expected", "enum": "expected", "union_tag_invalid": "expected_tags"}
OTHER = "is not what it must be"


def fault(field: str, rule: str) -> PydanticCustomError:
    """What a validator of a whole object raises to name one of its fields.

    Args:
        field: The field, within that object.
        rule: What it must be.
    """
    return PydanticCustomError(_FAULT, "{field}: {rule}", {"field": field, "rule": rule})


def rule_of(error: Mapping[str, Any]) -> str:
    """The rule that a value breaks.

    Args:
        error: One of pydantic's, with its context.
    """
    kind, context = str(error["type"]), error.get("ctx") or {}
    if kind == _FAULT:
        rule = str(context["rule"])
    elif kind in {"value_error", "assertion_error"}:  # a validator's own words
        rule = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    elif kind in _CHOICES:
        rule = _one_of(str(context[_CHOICES[kind]]))
    elif kind in _MEMBERS:
        rule = _count(kind, context)
    elif kind.startswith(("datetime_", "date_", "time_")):
        rule = _TIME
    else:
        rule = _RULES.get(kind, OTHER).format_map({name: _plain(value) for name, value in context.items()})
    return rule


def faults_of(errors: Sequence[Mapping[str, Any]], given: Any = None) -> list[dict[str, str]]:
    """Pydantic's errors as `{field, rule, type}`; what was given is not repeated.

    Args:
        errors: With their context.
        given: The whole document, to tell its names from those of pydantic's own steps; None leaves all of them.
    """
    rules: dict[str, dict[str, str]] = {}
    for error in errors:
        steps, part = list(error["loc"]), ""
        if given is not None:
            steps, part = _steps(error["loc"], given, missing=error["type"] == "missing")
        context = error.get("ctx") or {}
        if error["type"] == _FAULT:
            steps.append(context["field"])
        elif error["type"].startswith("union_tag"):
            steps.append(str(context["discriminator"]).strip("'"))
        # several rules of one field are those of its several forms
        rules.setdefault(_path(steps), {})[part + rule_of(error)] = str(error["type"])
    return [
        {"field": field, "rule": " or ".join(of_field), "type": next(iter(of_field.values()))}
        for field, of_field in rules.items()
        # when a fault lies deeper, that form was meant, and no other
        if given is None or not field or not any(other.startswith(f"{field}.") for other in rules)
    ][:MAX_FAULTS]


def _steps(location: Sequence[int | str], given: Any, *, missing: bool) -> tuple[list[int | str], str]:
    """The part of a location that is made of the document's own names and places; and which part of a line it means."""
    steps: list[int | str] = []
    here: Any = given
    for position, step in enumerate(location):
        if isinstance(step, int):
            if isinstance(here, list) and step < len(here):
                steps.append(step)
                here = here[step]
        elif isinstance(here, dict) and step in here:
            steps.append(step)
            here = here[step]
        elif position == len(location) - 1:
            if missing:
                steps.append(step)
            elif isinstance(here, str) and steps[-1:] == ["command"]:
                return steps, f"{step}: "
    return steps, ""


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _path(steps: Sequence[int | str]) -> str:
    """Names in it may be the input's own, so they are cut, and a NUL is shown as what it is."""
    return ".".join(str(step)[:_MAX_NAME_CHARACTERS] for step in steps).replace("\x00", "\\u0000")


def _one_of(expected: str) -> str:
    values = _QUOTED.findall(expected) or [expected]
    return f"must be {values[0]}" if len(values) == 1 else f"must be one of {', '.join(values)}"


def _count(kind: str, context: Mapping[str, Any]) -> str:
    least = kind.endswith("short")
    number = context["min_length" if least else "max_length"]
    if least and number == 1:
        return "must not be empty"
    noun = _MEMBERS[kind]
    return f"must have at {'least' if least else 'most'} {number} {noun if number == 1 else _PLURALS[noun]}"
