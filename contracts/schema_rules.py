"""Rules over several fields, in JSON Schema's form: the code checks them itself, and whoever reads a schema must know them."""

from typing import Any

from pydantic import JsonValue

_NULL: dict[str, JsonValue] = {"type": "null"}
_GIVEN: dict[str, JsonValue] = {"not": _NULL}


def exactly_one(*names: str) -> dict[str, JsonValue]:
    """One of these is given, and no other.

    Args:
        names: Fields; null is as good as left out.
    """
    return {
        "oneOf": [
            {
                "required": [name],
                "properties": {one: _GIVEN if one == name else _NULL for one in names},
            }
            for name in names
        ]
    }


def not_together(*names: str) -> dict[str, JsonValue]:
    """Not all of these are given.

    Args:
        names: Fields; null is as good as left out.
    """
    return {"not": {"required": list(names), "properties": dict.fromkeys(names, _GIVEN)}}


def at_least_one(*names: str) -> dict[str, JsonValue]:
    """Some of these are given.

    Args:
        names: Fields; null is as good as left out.
    """
    return {"anyOf": [{"required": [name], "properties": {name: _GIVEN}} for name in names]}


def needs(name: str, *others: str) -> dict[str, JsonValue]:
    """Where one is given, so is one of the others.

    Args:
        name: The field.
        others: Fields that it needs, any of them.
    """
    return {"if": {"required": [name], "properties": {name: _GIVEN}}, "then": at_least_one(*others)}


def batch_items(schema: dict[str, Any]) -> None:
    """A batch has an action at least, and its actions name no phone.

    Args:
        schema: Of the batch's `actions`; changed in place.
    """
    schema["minItems"] = 1
    schema["items"] = {**schema["items"], "properties": {"device": _NULL, "tag": _NULL}}


def not_null(name: str) -> dict[str, JsonValue]:
    """A field is not null when it is sent, though it may be on record.

    Args:
        name: The field.
    """
    return {"allOf": [{"properties": {name: _GIVEN}}]}
