"""What an answer's token stream has told so far, and whether its result goes on from there."""

import hashlib
from dataclasses import dataclass

EntryId = tuple[int, int]
START: EntryId = (0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a token stream."""

    id: EntryId
    run: str
    text: str

    @property
    def name(self) -> str:
        """Its id as Redis writes it."""
        return f"{self.id[0]}-{self.id[1]}"


class Transcript:
    """Follows one answer; keeps a digest of the text instead of the text."""

    def __init__(self) -> None:
        self._run: str | None = None
        self._void: set[str] = set()
        self._digest = hashlib.sha256()
        self.characters = 0
        """Told in this run."""

    def add(self, entry: Entry) -> bool:
        """Take the next entry; one of a run that was given up (its worker was slow to notice) counts for nothing.

        Args:
            entry: In the stream's order.

        Returns:
            Whether the answer begins anew with this entry after text had been told.
        """
        if entry.run in self._void:
            return False
        restarted = entry.run != self._run and self.characters > 0
        if entry.run != self._run:
            if self._run is not None:
                self._void.add(self._run)
            self._run = entry.run
            self._digest = hashlib.sha256()
            self.characters = 0
        self._digest.update(entry.text.encode())
        self.characters += len(entry.text)
        return restarted

    def counts(self, entry: Entry) -> bool:
        """Whether an entry that was added belongs to the answer as it stands now.

        Args:
            entry: Added before.
        """
        return entry.run == self._run

    def rest(self, text: str) -> str | None:
        """What the whole text has beyond what was told; None when it is another text.

        Args:
            text: The result's.
        """
        told = text[: self.characters]
        if len(told) < self.characters or hashlib.sha256(told.encode()).digest() != self._digest.digest():
            return None
        return text[self.characters :]
