"""The route that reads artifacts: whole, a part of one (as players of recordings ask), or not again when it is known."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from gateway.access import Owner, PartsOf
from gateway.database import DatabaseAway
from gateway.intake import headers_of
from gateway.parts import Parts
from gateway.problems import Problem, ProblemType, storage_away

router = APIRouter()

_SECONDS = 5.0
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

ARTIFACT = """
select a.content_type, a.size_bytes, substring(a.content from $3 for $4) as content from artifacts a
where a.sha256 = $1 and exists (select from artifact_owners o where o.sha256 = a.sha256 and o.owner = $2)
"""
FACTS = """
select a.content_type, a.size_bytes from artifacts a
where a.sha256 = $1 and exists (select from artifact_owners o where o.sha256 = a.sha256 and o.owner = $2)
"""
_WHOLE = (1, 2**31 - 1)


@router.get(
    "/api/artifacts/{sha256}",
    tags=["artifacts"],
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
    """A picture, recording or file that a command of yours has made."""
    asked = headers_of(request.scope)
    tag = f'"{sha256}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable", "Accept-Ranges": "bytes"}
    if asked.get(b"if-none-match") == tag.encode():
        await _row(parts, FACTS, sha256, owner)
        return Response(status_code=304, headers=headers)
    if b"range" in asked and asked.get(b"if-range", tag.encode()) == tag.encode():
        facts = await _row(parts, FACTS, sha256, owner)
        size_bytes = int(facts["size_bytes"])
        part = wanted_part(asked[b"range"].decode("latin-1"), size_bytes)
        if part is not None:
            first, last = part
            if first > last:
                headers["Content-Range"] = f"bytes */{size_bytes}"
                return Response(status_code=416, headers=headers)
            row = await _row(parts, ARTIFACT, sha256, owner, first + 1, last - first + 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{size_bytes}"
            return Response(row["content"], status_code=206, headers=headers, media_type=row["content_type"])
    row = await _row(parts, ARTIFACT, sha256, owner, *_WHOLE)
    return Response(row["content"], headers=headers, media_type=row["content_type"])


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


async def _row(parts: Parts, query: str, *arguments: Any) -> Any:
    try:
        rows = await parts.database.fetch(query, *arguments, timeout_seconds=_SECONDS)
    except DatabaseAway:
        raise storage_away() from None
    if not rows:
        raise Problem(ProblemType.NOT_FOUND, "You have no such artifact.")
    return rows[0]
