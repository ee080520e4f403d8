"""Sends a file to the gateway as an artifact, and goes on where a connection broke off."""

import hashlib
import mimetypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import httpx

from contracts.settings import stop
from ops.admin.gateway_client import detail_of, gateway

_APK = "application/vnd.android.package-archive"
_PARTIAL = "application/partial-upload"
_UPLOADS = "/api/artifacts"
_TRIES = 8
"""Without a new byte, before it is given up."""
_PASSING = frozenset({408, 409, 429})
_LONGEST_PAUSE_SECONDS = 10.0
_READ_BYTES = 256 * 1024
_TIMEOUT = httpx.Timeout(30.0, read=300.0)
"""An upload that came in parts is read again at its end."""

Progress = Callable[[int], None]
"""Told how many bytes are sent."""


def upload(path: Path, *, media_type: str | None, resume: str | None, progress: Progress) -> dict[str, Any]:
    """Upload a file; ends the process with one line when that cannot be done.

    Args:
        path: The file.
        media_type: What it is; None guesses by its name.
        resume: Address of an upload of the same file that was begun before.
        progress: Told how far it is.
    """
    try:
        with path.open("rb") as file, gateway(_TIMEOUT) as client:
            size_bytes = file.seek(0, 2)
            address = resume or _begin(client, path, file, size_bytes, media_type or _guess(path))
            return _Sending(client, address, file, size_bytes, progress).run()
    except OSError as error:
        stop(f"{path}: {error.strerror}", code=1)


def _begin(client: httpx.Client, path: Path, file: BufferedReader, size_bytes: int, media_type: str) -> str:
    file.seek(0)
    query = {"file_name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    headers = {"Upload-Complete": "?0", "Upload-Length": str(size_bytes), "Content-Type": media_type}
    answer = client.post(_UPLOADS, params=query, headers=headers)
    if answer.status_code != httpx.codes.CREATED:
        stop(detail_of(answer), code=1)
    return str(answer.headers["location"])


@dataclass(frozen=True, slots=True)
class _Sending:
    """A file on its way to an upload."""

    client: httpx.Client
    address: str
    file: BufferedReader
    size_bytes: int
    progress: Progress

    def run(self) -> dict[str, Any]:
        """Send what is missing, again and again, until all of it is there."""
        tries, known, error = 0, -1, ""
        while tries < _TRIES:
            if tries:
                time.sleep(min(2.0 ** (tries - 1) / 4, _LONGEST_PAUSE_SECONDS))
            tries += 1
            try:
                state = self._ask()
                if state["complete"]:
                    return dict(state["artifact"])
                tries = tries if state["offset"] == known else 1
                known = state["offset"]
                answer = self._append(known)
            except httpx.TransportError as broken:
                error = str(broken) or type(broken).__name__
                continue
            if answer.status_code == httpx.codes.CREATED:
                return dict(answer.json())
            _stop_unless_passing(answer)
            error = detail_of(answer)
        sentence = f"the upload stands still at {max(known, 0)} of {self.size_bytes} bytes ({error})"
        return stop(f"{sentence}; go on later with --resume {self.address}", code=1)

    def _ask(self) -> dict[str, Any]:
        answer = self.client.get(self.address)
        if answer.is_success:
            return dict(answer.json())
        _stop_unless_passing(answer)
        raise httpx.TransportError(detail_of(answer))

    def _append(self, offset: int) -> httpx.Response:
        headers = {
            "Content-Type": _PARTIAL,
            "Content-Length": str(self.size_bytes - offset),
            "Upload-Offset": str(offset),
            "Upload-Complete": "?1",
        }
        return self.client.patch(self.address, content=self._pieces(offset), headers=headers)

    def _pieces(self, offset: int) -> Iterator[bytes]:
        self.file.seek(offset)
        while piece := self.file.read(_READ_BYTES):
            yield piece
            offset += len(piece)
            self.progress(offset)


def _stop_unless_passing(answer: httpx.Response) -> None:
    if answer.is_client_error and answer.status_code not in _PASSING:
        stop(detail_of(answer), code=1)


def _guess(path: Path) -> str:
    if path.suffix.lower() == ".apk":
        return _APK
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
