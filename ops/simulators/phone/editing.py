"""The text field that has the focus: where its cursor stands and what keys do to it."""

from dataclasses import dataclass

_MOVES = {"DPAD_LEFT": -1, "DPAD_RIGHT": 1}


@dataclass(slots=True)
class Cursor:
    """The place in a field where text goes; behind its last character until a key moves it."""

    from_end: int = 0
    """Characters between it and the end of the text."""
    all_selected: bool = False

    def reset(self) -> None:
        """Back to the end, nothing selected."""
        self.from_end = 0
        self.all_selected = False

    def insert(self, text: str, added: str) -> str:
        """The text after something was typed or pasted."""
        before, after = self._parts(text)
        self.all_selected = False
        self.from_end = len(after)
        return before + added + after

    def press(self, text: str, key: str) -> str:
        """The text after a key that edits or moves; others change nothing.

        Args:
            text: Before.
            key: Its name without `KEYCODE_`.
        """
        if key in ("DEL", "FORWARD_DEL"):
            return self._delete(text, forward=key == "FORWARD_DEL")
        self.all_selected = False
        if key == "MOVE_HOME":
            self.from_end = len(text)
        elif key == "MOVE_END":
            self.from_end = 0
        elif key in _MOVES:
            self.from_end = min(max(0, self.from_end - _MOVES[key]), len(text))
        return text

    def _delete(self, text: str, *, forward: bool) -> str:
        before, after = self._parts(text)
        if not self.all_selected:
            before, after = (before, after[1:]) if forward else (before[:-1], after)
        self.all_selected = False
        self.from_end = len(after)
        return before + after

    def _parts(self, text: str) -> tuple[str, str]:
        if self.all_selected:
            return "", ""
        place = max(0, len(text) - self.from_end)
        return text[:place], text[place:]
