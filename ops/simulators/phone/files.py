"""The simulated phone's files: kept in memory, writable where a phone lets `adb` write, with the errors of a phone."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

SDCARD = "/sdcard"
TEMPORARY = "/data/local/tmp"
BIG = f"{SDCARD}/big"
"""A file of BIG_BYTES that takes no memory."""
BIG_BYTES = 50 * 1024 * 1024
_WRITABLE = (SDCARD, TEMPORARY)
_SDCARD_NAMES = ("/storage/emulated/0", "/storage/self/primary", "/mnt/sdcard")
_ROOM_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_LINE = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n"
_FOLDERS = ("/", "/data", "/data/local", TEMPORARY, "/proc", "/dev", "/system", "/system/bin")
_SDCARD_FOLDERS = ("", "/DCIM", "/Download", "/Movies", "/Pictures")

NOT_FOUND = "No such file or directory"
IS_FOLDER = "Is a directory"
NOT_FOLDER = "Not a directory"
EXISTS = "File exists"
NOT_EMPTY = "Directory not empty"
READ_ONLY = "Read-only file system"
FULL = "No space left on device"


class FileError(Exception):
    """A file cannot be read or changed; the message is what Android's programs print behind the path."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file: bytes, or a pattern of a given size that is made while it is read."""

    held: bytes = b""
    made_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """How long it is."""
        return self.made_bytes or len(self.held)

    def chunks(self) -> Iterator[bytes]:
        """It in pieces of at most 64 KiB."""
        if not self.made_bytes:
            for start in range(0, len(self.held), _CHUNK_BYTES):
                yield self.held[start : start + _CHUNK_BYTES]
            return
        piece = _LINE * (_CHUNK_BYTES // len(_LINE))
        for start in range(0, self.made_bytes, _CHUNK_BYTES):
            yield piece[: self.made_bytes - start]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or folder, as `ls` and `stat` see it."""

    name: str
    is_folder: bool
    size_bytes: int
    changed_at: int
    """Unix time."""


@dataclass(slots=True)
class _File:
    content: Content
    changed_at: int


@dataclass(slots=True)
class Files:
    """The phone's files and folders, by their full path."""

    made_when_read: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    """Files under `/proc`: what is in them is asked for at each reading."""
    is_full: Callable[[], bool] = lambda: False
    """Whether nothing can be written at the moment."""
    _files: dict[str, _File] = field(default_factory=dict)
    _folders: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        now = int(time.time())
        self._folders = dict.fromkeys((*_FOLDERS, *(SDCARD + name for name in _SDCARD_FOLDERS)), now)
        self._files[BIG] = _File(Content(made_bytes=BIG_BYTES), now)
        self._files["/dev/null"] = _File(Content(), now)

    def read(self, path: str) -> Content:
        """What is in a file.

        Raises:
            FileError: There is no such file.
        """
        place = resolved(path)
        if place in self._folders:
            raise FileError(IS_FOLDER)
        if place in self.made_when_read:
            return Content(self.made_when_read[place]())
        if place not in self._files:
            raise FileError(NOT_FOUND)
        return self._files[place].content

    def write(self, path: str, content: bytes, *, append: bool = False, changed_at: int | None = None) -> None:
        """Replace or lengthen a file; the folder it is in must exist.

        Raises:
            FileError: It cannot be written there.
        """
        place = self.check_writable(path)
        if place == "/dev/null":
            return
        before = b""
        if append and place in self._files:
            before = b"".join(self._files[place].content.chunks())
        others = sum(len(file.content.held) for name, file in self._files.items() if name != place)
        if self.is_full() or others + len(before) + len(content) > _ROOM_BYTES:
            raise FileError(FULL)
        self._files[place] = _File(Content(before + content), int(time.time()) if changed_at is None else changed_at)

    def check_writable(self, path: str) -> str:
        """The place of a file that could be written.

        Raises:
            FileError: It cannot.
        """
        place = resolved(path)
        if place == "/dev/null":
            return place
        if place in self._folders:
            raise FileError(IS_FOLDER)
        _check_area(place)
        parent = place.rpartition("/")[0]
        if parent in self._files:
            raise FileError(NOT_FOLDER)
        if parent not in self._folders:
            raise FileError(NOT_FOUND)
        return place

    def make_folder(self, path: str, *, parents: bool = False) -> bool:
        """Make a folder; whether it was not there before.

        Args:
            path: Its full path.
            parents: Make those above it too, and take one that exists.

        Raises:
            FileError: It cannot be made.
        """
        place = resolved(path)
        if place in self._folders and parents:
            return False
        if place in self._folders or place in self._files:
            raise FileError(EXISTS)
        _check_area(place)
        above = place.rpartition("/")[0]
        if above in self._files:
            raise FileError(NOT_FOLDER)
        if above not in self._folders:
            if not parents:
                raise FileError(NOT_FOUND)
            self.make_folder(above, parents=True)
        self._folders[place] = int(time.time())
        return True

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, or a folder with all that is in it.

        Raises:
            FileError: It is not there, or is a folder and `recursive` was not said.
        """
        place = resolved(path)
        if place not in self._files and place not in self._folders:
            raise FileError(NOT_FOUND)
        _check_area(place)
        if place in self._folders and not recursive:
            raise FileError(IS_FOLDER)
        for kept in (self._files, self._folders):
            for name in [name for name in kept if name == place or name.startswith(f"{place}/")]:
                kept.pop(name)

    def remove_folder(self, path: str) -> None:
        """Remove a folder that is empty.

        Raises:
            FileError: It is not there, is a file, or is not empty.
        """
        place = resolved(path)
        if place in self._files:
            raise FileError(NOT_FOLDER)
        if self.entries(place):
            raise FileError(NOT_EMPTY)
        self.remove(place, recursive=True)

    def move(self, path: str, target: str) -> str:
        """Rename a file or move it into a folder; what was there before is replaced at once, as `rename` does.

        Returns:
            Its new path.

        Raises:
            FileError: It is not there, or cannot be there.
        """
        place = resolved(path)
        if place in self._folders:
            raise FileError("moving folders is not simulated")
        if place not in self._files:
            raise FileError(NOT_FOUND)
        _check_area(place)
        into = resolved(target)
        if into in self._folders:
            into = f"{into}/{place.rpartition('/')[2]}"
        into = self.check_writable(into)
        self._files[into] = self._files.pop(place)
        return into

    def entry(self, path: str) -> Entry | None:
        """A file or folder; None when there is none."""
        place = resolved(path)
        name = place.rpartition("/")[2] or "/"
        if place in self._folders:
            return Entry(name, is_folder=True, size_bytes=4096, changed_at=self._folders[place])
        if place in self.made_when_read:
            return Entry(name, is_folder=False, size_bytes=0, changed_at=int(time.time()))
        file = self._files.get(place)
        if file is None:
            return None
        return Entry(name, is_folder=False, size_bytes=file.content.size_bytes, changed_at=file.changed_at)

    def entries(self, path: str) -> list[Entry]:
        """What is in a folder, by name.

        Raises:
            FileError: There is no such folder.
        """
        place = resolved(path)
        if place not in self._folders:
            raise FileError(NOT_FOLDER if place in self._files else NOT_FOUND)
        inside = "/" if place == "/" else f"{place}/"
        names = {*self._files, *self._folders, *self.made_when_read} - {"/"}
        here = sorted(name for name in names if name.startswith(inside) and "/" not in name[len(inside) :])
        return [entry for name in here if (entry := self.entry(name)) is not None]


def resolved(path: str) -> str:
    """A path without `.`, `..`, doubled slashes, and with one name for the shared storage; `/` is where a shell starts."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    place = "/" + "/".join(parts)
    for name in _SDCARD_NAMES:
        if place == name or place.startswith(f"{name}/"):
            return SDCARD + place[len(name) :]
    return place


def _check_area(place: str) -> None:
    if not place.startswith(tuple(f"{area}/" for area in _WRITABLE)):
        raise FileError(READ_ONLY)
