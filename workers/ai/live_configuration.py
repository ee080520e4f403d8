"""Follows the providers file: what is configured changes with it, and calls under way keep what they began with.

A file that cannot be used changes nothing and is reported once; key files count like the file itself.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from contracts.logs import get_logger
from workers.ai.configuration import Configuration, ConfigurationError, load

_LOOK_SECONDS = 1.0

_Marks = dict[Path, tuple[int, int, int] | None]
"""For each file its time of change, size and inode; None where there is none."""


class LiveConfiguration:
    """The providers file as it is now.

    Args:
        path: The file; empty when there is none, and then nothing is configured.
        secret_from_environment: Reads the variable that an `api_key_env` names.
        look_seconds: How often the files are looked at.

    Raises:
        ConfigurationError: The file cannot be used.
    """

    def __init__(
        self, path: str, *, secret_from_environment: Callable[[str], str | None], look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self._path = Path(path) if path else None
        self._secret_from_environment = secret_from_environment
        self._look_seconds = look_seconds
        self._current = Configuration()
        self._marks: _Marks = {}
        if self._path is not None:
            self._marks = {self._path: _mark(self._path)}  # before it is read: a change from then on is seen
            self._take(self._load(self._path))

    @property
    def current(self) -> Configuration:
        """What is configured; another object when that changed."""
        return self._current

    async def run(self) -> None:
        """Look for changes until cancelled."""
        if self._path is None:
            return
        log = get_logger(file=str(self._path))
        before, refused = self._marks, ""
        while True:
            await asyncio.sleep(self._look_seconds)
            marks = {path: _mark(path) for path in self._marks}
            # what is being written is not read yet; what was refused may lack a key file that comes later
            stands_still, before = marks == before, marks
            if not stands_still or (marks == self._marks and not refused):
                continue
            self._marks = marks
            told, refused = refused, self._reload(self._path)
            if not refused:
                log.info("configuration_reloaded", models=len(self._current.targets))
            elif refused != told:
                log.error("configuration_refused", error=refused)

    def _reload(self, path: Path) -> str:
        """Take the file as it is now; returns why it cannot be used, or nothing."""
        try:
            self._take(self._load(path))
        except ConfigurationError as error:
            return str(error)
        return ""

    def _load(self, path: Path) -> Configuration:
        return load(path, secret_from_environment=self._secret_from_environment)

    def _take(self, configuration: Configuration) -> None:
        self._current = configuration
        if self._path is not None:
            names = {target.provider.api_key_file for target in configuration.targets} - {None}
            files = [self._path, *(self._path.parent / str(name) for name in names)]
            self._marks = {path: self._marks[path] if path in self._marks else _mark(path) for path in files}


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
