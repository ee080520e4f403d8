"""Puts together what one scroll after another shows of a list, where each view repeats a part of the one before. Pure."""

from collections.abc import Sequence
from typing import Any, Literal


class Collection:
    """What was seen so far, each thing once where it stands.

    Args:
        form: What comes of it: one text, a list of texts, or a list of records.
    """

    def __init__(self, form: Literal["text", "texts", "records"]) -> None:
        self._form = form
        self._seen: list[Any] = []

    def add(self, shown: Sequence[Any]) -> bool:
        """Take the next view.

        Args:
            shown: What it shows, from top to bottom.

        Returns:
            Whether it shows anything new.
        """
        overlap = _overlap(self._seen, shown)
        new = [one for one in shown[overlap:] if overlap or one not in self._seen]
        self._seen.extend(new)
        return bool(new)

    def answer(self) -> Any:
        """All of it."""
        return "\n".join(self._seen) if self._form == "text" else list(self._seen)


def _overlap(seen: Sequence[Any], shown: Sequence[Any]) -> int:
    """How many of the first things shown are the last ones seen."""
    longest = min(len(seen), len(shown))
    return next((count for count in range(longest, 0, -1) if list(seen[-count:]) == list(shown[:count])), 0)
