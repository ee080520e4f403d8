"""Routes that read artifacts: a list; one whole, a part of it (as players of recordings ask), or not again when known.

Small ones stand in their row; what was uploaded is in pieces, and is sent one after another.
"""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from gateway.container import Parts
from gateway.dependencies import Owner, PartsOf
from gateway.http.cursors import decode_cursor, encode_cursor
from gateway.http.problems import Problem, ProblemType, storage_away
from gateway.http.request import headers_of
from gateway.routes.artifact_views import ArtifactPage, artifact_view
from gateway.services import upload_rows
from gateway.services.database import DatabaseAway
from gateway.services.views import encode

router = APIRouter(tags=["artifacts"])

_SECONDS = 5.0
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_MAX_PAGE = 200
_NEWEST = (datetime(9999, 1, 1, tzinfo=UTC), UUID(int=0))

# An owner's own words for what it is come first; others may hold the same bytes under another name.
FACTS = """
select coalesce(o.media_type, a.content_type) as media_type, a.size_bytes, a.upload, o.file_name
from artifacts a cross join lateral (
  select o.media_type, o.file_name from artifact_owners o where o.sha256 = a.sha256 and o.owner = $2
  order by o.media_type is null limit 1
) o
where a.sha256 = $1
"""
ARTIFACT = """
select substring(a.content from $3 for $4) as content from artifacts a
where a.sha256 = $1 and exists (select from artifact_owners o where o.sha256 = a.sha256 and o.owner = $2)
"""
PAGE = """
select a.sha256, coalesce(o.media_type, a.content_type) as media_type, a.size_bytes, o.file_name, a.created_at
from (
  select distinct on (sha256) sha256, media_type, file_name from artifact_owners
  where owner = $1 order by sha256, media_type is null
) o join artifacts a on a.sha256 = o.sha256
where a.created_at <= $2 and (a.created_at < $2 or a.sha256 > $3)
order by a.created_at desc, a.sha256
limit $4
"""
OWNED = """
select distinct o.sha256 from artifact_owners o where o.owner = $1 and o.sha256 = any ($2::text[])
"""


@router.get("/api/artifacts", responses={200: {"model": ArtifactPage}})
async def list_artifacts(
    parts: PartsOf,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """What you have uploaded and what your commands have made, newest first."""
    after, id_ = decode_cursor(cursor)[:2] if cursor is not None else _NEWEST
    behind = (
        id_.hex + "~" if cursor is not None else ""
    )  # a cursor has room for half of a hash: `~` is behind any other half
    rows = await _rows(parts, PAGE, owner, after, behind, limit + 1)
    shown = rows[:limit]
    items = [
        artifact_view(
            row["sha256"], row["size_bytes"], row["media_type"], row["file_name"], created_at=row["created_at"]
        )
        for row in shown
    ]
    more = len(rows) > limit
    next_cursor = encode_cursor(shown[-1]["created_at"], UUID(hex=shown[-1]["sha256"][:32])) if more else None
    return Response(encode({"items": items, "next_cursor": next_cursor}), media_type="application/json")


@router.get(
    "/api/artifacts/{sha256}",
    response_class=Response,
    responses={
        200: {
            "content": {"image/png": {}, "video/mp4": {}, "application/octet-stream": {}},
            "description": "The bytes.",
        },
        206: {"description": "The bytes that `Range` asked for."},
        304: {"description": "As you have it."},
        416: {"description": "It has no such bytes."},
    },
)
async def read_artifact(
    request: Request, parts: PartsOf, owner: Owner, sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
) -> Response:
    """A file that you have uploaded, or that a command of yours has made."""
    asked = headers_of(request.scope)
    tag = f'"{sha256}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable", "Accept-Ranges": "bytes"}
    facts = await _one(parts, FACTS, sha256, owner)
    size_bytes = int(facts["size_bytes"])
    if asked.get(b"if-none-match") == tag.encode():
        return Response(status_code=304, headers=headers)
    if facts["file_name"] is not None:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(facts['file_name'], safe='')}"
    first, last, status = 0, size_bytes - 1, 200
    if b"range" in asked and asked.get(b"if-range", tag.encode()) == tag.encode():
        part = wanted_part(asked[b"range"].decode("latin-1"), size_bytes)
        if part is not None:
            first, last = part
            status = 206
            if first > last:
                headers["Content-Range"] = f"bytes */{size_bytes}"
                return Response(status_code=416, headers=headers)
            headers["Content-Range"] = f"bytes {first}-{last}/{size_bytes}"
    media_type = facts["media_type"]
    if facts["upload"] is None:
        row = await _one(parts, ARTIFACT, sha256, owner, first + 1, last - first + 1)
        return Response(row["content"], status, headers, media_type)
    headers["Content-Length"] = str(last - first + 1)
    return StreamingResponse(_pieces(parts, facts["upload"], first, last), status, headers, media_type)


async def missing_artifacts(parts: Parts, owner: str, sha256s: tuple[str, ...]) -> list[str]:
    """Which of these artifacts an owner does not have.

    Args:
        parts: What the gateway consists of.
        owner: Who asks.
        sha256s: The artifacts.

    Raises:
        DatabaseAway: PostgreSQL does not answer.
    """
    rows = await parts.database.fetch(OWNED, owner, list(sha256s), timeout_seconds=_SECONDS)
    known = {row["sha256"] for row in rows}
    return [sha256 for sha256 in sha256s if sha256 not in known]


def wanted_part(header: str, size_bytes: int) -> tuple[int, int] | None:
    """The first and last byte that a Range header asks for (RFC 9110, section 14).

    Args:
        header: Its value.
        size_bytes: Of the whole.

    Returns:
        Places counted from 0; the first behind the last when there are no such bytes; None when the header asks for
        several parts or makes no sense, and the whole is the answer.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return (max(0, size_bytes - int(last)), size_bytes - 1) if int(last) else (size_bytes, -1)
    if last and int(last) < int(first):
        return None
    end = min(int(last), size_bytes - 1) if last else size_bytes - 1
    return int(first), end


async def _pieces(parts: Parts, upload: UUID, first: int, last: int) -> AsyncIterator[bytes]:
    position = first
    while position <= last:
        piece = await upload_rows.piece_at(parts.database, upload, position)
        if piece is None:
            raise RuntimeError("an artifact was removed while it was sent")
        yield piece[: last - position + 1]
        position += len(piece)


async def _one(parts: Parts, query: str, *arguments: Any) -> Any:
    rows = await _rows(parts, query, *arguments)
    if not rows:
        raise Problem(ProblemType.NOT_FOUND, "You have no such artifact.")
    return rows[0]


async def _rows(parts: Parts, query: str, *arguments: Any) -> list[Any]:
    try:
        return await parts.database.fetch(query, *arguments, timeout_seconds=_SECONDS)
    except DatabaseAway:
        raise storage_away() from None
