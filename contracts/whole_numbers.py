"""Whole numbers in bodies: `100.0` is one, as in JSON Schema; `"100"` and `true` are none."""

from pydantic import BeforeValidator


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""For `Annotated[int, Field(strict=True, ...), WHOLE]`; it goes last, so that the others check what it gives."""
