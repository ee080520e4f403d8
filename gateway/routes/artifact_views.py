"""How artifacts and uploads are shown."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field


class ArtifactLinks(BaseModel):
    """Where to go from here."""

    self: str = Field(description="GET reads the bytes, whole or in part (`Range`).")


class ArtifactView(BaseModel):
    """What an artifact is; its bytes are at its link."""

    id: str = Field(description="The same as `sha256`; what `install` and `push` take as `artifact`.")
    sha256: str
    size_bytes: int
    media_type: str
    file_name: str | None
    links: ArtifactLinks


class ListedArtifact(ArtifactView):
    """An artifact in a list."""

    created_at: datetime = Field(description="When it was stored last; it is removed when it has its retention's age.")


class ArtifactPage(BaseModel):
    """Some artifacts, newest first."""

    items: list[ListedArtifact]
    next_cursor: str | None = Field(description="For the next page; null on the last.")


class UploadLinks(BaseModel):
    """Where to go from here."""

    self: str = Field(description="HEAD says how far it is, PATCH sends more, DELETE gives it up.")


class UploadView(BaseModel):
    """How far an upload is."""

    id: UUID
    offset: int = Field(description="Bytes that are stored; the next part begins there.")
    size_bytes: int | None = Field(description="Of the whole; null when it was not said.")
    complete: bool
    expires_at: datetime | None = Field(description="When it is removed unless more comes; null once it is complete.")
    artifact: ArtifactView | None = Field(description="Once it is complete.")
    links: UploadLinks


def artifact_view(sha256: str, size_bytes: int, media_type: str, file_name: str | None, **more: Any) -> dict[str, Any]:
    """The document of an artifact.

    Args:
        sha256: Its hash, and its id.
        size_bytes: How large it is.
        media_type: What it is.
        file_name: What its owner calls it.
        more: Further members.
    """
    return {
        "id": sha256,
        "sha256": sha256,
        "size_bytes": size_bytes,
        "media_type": media_type,
        "file_name": file_name,
        **more,
        "links": {"self": f"/api/artifacts/{sha256}"},
    }
