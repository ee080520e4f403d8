"""Routes that take an artifact's bytes: whole in one request, or in parts that go on where the last one broke off.

    POST   /api/artifacts                Upload-Complete: ?1, or none: the body is the whole -> 201, the artifact
                                         Upload-Complete: ?0: begins an upload -> 201, its address
    HEAD   /api/artifacts/uploads/{id}   how far it is: Upload-Offset
    PATCH  /api/artifacts/uploads/{id}   more of it -> 204; its last part -> 201, the artifact
    DELETE /api/artifacts/uploads/{id}   gives it up

Source: the IETF draft "Resumable Uploads for HTTP" (draft-ietf-httpbis-resumable-upload).
"""

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from gateway.container import Parts
from gateway.dependencies import Owner, PartsOf
from gateway.http.problems import Problem, ProblemType, invalid, storage_away
from gateway.http.request import headers_of
from gateway.http.upload_request import PARTIAL, UploadRequest, read_upload
from gateway.routes.artifact_views import ArtifactView, UploadView, artifact_view
from gateway.services import upload_rows
from gateway.services.appending import Whole
from gateway.services.database import DatabaseAway
from gateway.services.views import encode

router = APIRouter(tags=["artifacts"])

_PATH = "/api/artifacts/uploads/{upload}"
_BYTES = {"schema": {"type": "string", "format": "binary"}}


def _parameter(name: str, place: str, type_: str, text: str, *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": {"type": type_}, "description": text}


_POST: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/octet-stream": _BYTES}},
    "parameters": [
        _parameter("file_name", "query", "string", "What you call it, such as `app.apk`."),
        _parameter(
            "sha256", "query", "string", "Of the whole, in hexadecimal; also as `Repr-Digest`. Other bytes are refused."
        ),
        _parameter("Upload-Complete", "header", "string", "`?0` begins an upload of which more follows by PATCH."),
        _parameter("Upload-Length", "header", "integer", "Bytes of the whole."),
    ],
}
_PATCH: dict[str, Any] = {
    "requestBody": {"required": True, "content": {PARTIAL: _BYTES}},
    "parameters": [
        _parameter("Upload-Offset", "header", "integer", "Place of the body's first byte.", required=True),
        _parameter("Upload-Complete", "header", "string", "`?1` with the last part."),
    ],
}

UploadId = Annotated[UUID, Path(description="From the `Location` that the POST answered.")]


@router.post(
    "/api/artifacts",
    status_code=201,
    responses={201: {"model": ArtifactView, "description": "The artifact; with `Upload-Complete: ?0` the upload."}},
    openapi_extra=_POST,
)
async def upload_artifact(request: Request, parts: PartsOf, owner: Owner) -> Response:
    """Store a file, such as an APK, for actions that put it on a phone; the body is the file itself."""
    asked = read_upload(headers_of(request.scope), request.scope["query_string"], partial=False)
    if asked.offset:
        raise _mismatch(0, asked.offset)
    parts.uploads.check_size(asked.least_bytes)
    async with parts.uploads.room(owner):
        try:
            upload = await upload_rows.create(
                parts.database,
                owner,
                media_type=asked.media_type,
                file_name=asked.file_name,
                size_bytes=asked.size_bytes,
                sha256=asked.sha256,
            )
            if upload is None:
                sentence = (
                    f"You have {upload_rows.MAX_OPEN} uploads that are not finished: finish them, or DELETE some."
                )
                raise Problem(ProblemType.TOO_MANY_UPLOADS, sentence)
            whole = Whole(asked.size_bytes, asked.sha256)
            return await _take(request, parts, owner, upload, asked, whole=whole)
        except DatabaseAway:
            raise storage_away() from None


@router.patch(
    _PATH,
    status_code=204,
    responses={
        201: {"model": ArtifactView, "description": "That was the last part: the artifact."},
        204: {"description": "More is to follow."},
        409: {"description": "The upload is not as long as `Upload-Offset` says, or it is complete."},
    },
    openapi_extra=_PATCH,
)
async def append_to_upload(request: Request, parts: PartsOf, owner: Owner, upload: UploadId) -> Response:
    """Send more of an upload, from where it is; with `Upload-Complete: ?1` the last of it."""
    asked = read_upload(headers_of(request.scope), request.scope["query_string"], partial=True)
    row = await _find(parts, owner, upload)
    if row["state"] != "open":
        raise _is_complete()
    if asked.offset != row["received_bytes"]:
        raise _mismatch(row["received_bytes"], asked.offset)
    for name, said, now in (
        ("Upload-Length", row["size_bytes"], asked.size_bytes),
        ("Repr-Digest", row["sha256"], asked.sha256),
    ):
        if said is not None and now is not None and said != now:
            raise invalid(name, f"was {said} before, and is {now} now")
    parts.uploads.check_size(asked.least_bytes)
    whole = Whole(asked.size_bytes if row["size_bytes"] is None else row["size_bytes"], row["sha256"] or asked.sha256)
    async with parts.uploads.room(owner):
        try:
            return await _take(request, parts, owner, upload, asked, whole=whole, row=row)
        except DatabaseAway:
            raise storage_away() from None


@router.get(_PATH, responses={200: {"model": UploadView}})
async def read_upload_progress(parts: PartsOf, owner: Owner, upload: UploadId) -> Response:
    """How far an upload is, and its artifact once it is complete."""
    row = await _find(parts, owner, upload)
    complete = row["state"] != "open"
    expires_at = row["touched_at"] + timedelta(seconds=parts.settings.upload_expiry_seconds)
    document = {
        "id": str(upload),
        "offset": row["received_bytes"],
        "size_bytes": row["size_bytes"],
        "complete": complete,
        "expires_at": None if complete else expires_at,
        "artifact": _artifact(row, row["sha256"], row["size_bytes"]) if complete else None,
        "links": {"self": _address(upload)},
    }
    return Response(encode(document), headers=_progress(parts, row), media_type="application/json")


@router.head(_PATH, status_code=204, responses={204: {"description": "`Upload-Offset`, `Upload-Complete`."}})
async def look_at_upload(parts: PartsOf, owner: Owner, upload: UploadId) -> Response:
    """How far an upload is, in headers."""
    return Response(status_code=204, headers=_progress(parts, await _find(parts, owner, upload)))


@router.delete(_PATH, status_code=204, responses={204: {"description": "It is given up."}})
async def cancel_upload(parts: PartsOf, owner: Owner, upload: UploadId) -> Response:
    """Give up an upload that is not complete; what came of it is removed."""
    row = await _find(parts, owner, upload)
    if row["state"] != "open":
        raise _is_complete()
    await _discard(parts, owner, upload)
    return Response(status_code=204)


async def _take(
    request: Request,
    parts: Parts,
    owner: str,
    upload: UUID,
    asked: UploadRequest,
    *,
    whole: Whole,
    row: Any = None,
) -> Response:
    """Append the body and answer; who cannot go on with an upload leaves nothing of it."""
    try:
        length, sha256 = await parts.uploads.take(
            request.receive, owner, upload, offset=asked.offset or 0, whole=whole, complete=asked.complete
        )
    except BaseException:
        if not asked.resumable:
            await _discard(parts, owner, upload)
        raise
    if sha256 is not None:
        facts = row or {"media_type": asked.media_type, "file_name": asked.file_name}
        document = _artifact(facts, sha256, length)
        headers = {"Location": document["links"]["self"], "ETag": f'"{sha256}"', "Upload-Complete": "?1"}
        return Response(encode(document), 201, headers, "application/json")
    headers = {"Upload-Complete": "?0", "Upload-Offset": str(length), "Upload-Limit": _limits(parts)}
    if row is not None:
        return Response(status_code=204, headers=headers)
    document = {"id": str(upload), "offset": length, "links": {"self": _address(upload)}}
    return Response(encode(document), 201, {"Location": _address(upload), **headers}, "application/json")


async def _find(parts: Parts, owner: str, upload: UUID) -> Any:
    try:
        row = await upload_rows.find(parts.database, owner, upload)
    except DatabaseAway:
        raise storage_away() from None
    if row is None:
        raise Problem(ProblemType.NOT_FOUND, f"You have no upload {upload}; one that stood still for long is removed.")
    return row


async def _discard(parts: Parts, owner: str, upload: UUID) -> None:
    try:
        await upload_rows.discard(parts.database, owner, upload)
    except DatabaseAway:
        raise storage_away() from None


def _artifact(facts: Any, sha256: str, size_bytes: int) -> dict[str, Any]:
    return artifact_view(sha256, size_bytes, facts["media_type"], facts["file_name"])


def _progress(parts: Parts, row: Any) -> dict[str, str]:
    return {
        "Upload-Offset": str(row["received_bytes"]),
        "Upload-Complete": "?0" if row["state"] == "open" else "?1",
        "Upload-Limit": _limits(parts),
        **({} if row["size_bytes"] is None else {"Upload-Length": str(row["size_bytes"])}),
    }


def _limits(parts: Parts) -> str:
    settings = parts.settings
    return f"max-size={settings.upload_limit_bytes}, max-age={round(settings.upload_expiry_seconds)}"


def _address(upload: UUID) -> str:
    return _PATH.format(upload=upload)


def _mismatch(expected: int, given: int | None) -> Problem:
    return Problem(
        ProblemType.UPLOAD_CONFLICT,
        f"The upload has {expected} bytes; send what follows them, with Upload-Offset: {expected}.",
        headers={"Upload-Offset": str(expected), "Upload-Complete": "?0"},
        members={"expected-offset": expected, "provided-offset": given},
    )


def _is_complete() -> Problem:
    return Problem(
        ProblemType.UPLOAD_CONFLICT,
        "It is complete; GET tells of its artifact.",
        headers={"Upload-Complete": "?1"},
    )
