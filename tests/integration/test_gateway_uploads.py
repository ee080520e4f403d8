"""Artifacts that are uploaded: whole, in parts, refused, given up, read again; nobody else's, and in bounded memory."""

import asyncio
import hashlib
import random
from base64 import b64encode
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import psutil  # type: ignore[import-untyped]  # it has no stubs
import pytest

from ops.admin.keys import create_key
from ops.stack.session import Session
from tests.integration.gateway_process import GatewayProcess, database, eventually, gateway_process

MIB = 1024 * 1024
APK = "application/vnd.android.package-archive"
PARTIAL = "application/partial-upload"


def some_bytes(size: int) -> bytes:
    """Different each time, so that no other test has stored them."""
    return uuid4().bytes + random.Random(size).randbytes(size - 16)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def begin(client: httpx.AsyncClient, **headers: str) -> str:
    answer = await client.post("/api/artifacts", headers={"Upload-Complete": "?0", **headers})
    assert answer.status_code == 201, answer.text
    assert answer.headers["upload-complete"] == "?0"
    return answer.headers["location"]


async def append(
    client: httpx.AsyncClient, address: str, offset: int, content: bytes, *, last: bool = False
) -> httpx.Response:
    headers = {"Content-Type": PARTIAL, "Upload-Offset": str(offset), "Upload-Complete": "?1" if last else "?0"}
    return await client.patch(address, content=content, headers=headers)


async def test_a_file_far_larger_than_a_body_may_be_is_stored_hashed_and_read_again(client: httpx.AsyncClient) -> None:
    content = some_bytes(5 * MIB + 17)
    name = sha256_of(content)

    stored = await client.post(
        "/api/artifacts?file_name=app%20%C3%A9.apk", content=content, headers={"Content-Type": APK}
    )
    read = await client.get(f"/api/artifacts/{name}")
    part = await client.get(f"/api/artifacts/{name}", headers={"Range": f"bytes={MIB - 2}-{2 * MIB + 1}"})

    assert stored.status_code == 201, stored.text
    assert stored.headers["location"] == f"/api/artifacts/{name}"
    assert stored.json() == {
        "id": name,
        "sha256": name,
        "size_bytes": len(content),
        "media_type": APK,
        "file_name": "app é.apk",
        "links": {"self": f"/api/artifacts/{name}"},
    }
    assert read.content == content
    assert read.headers["content-type"] == APK
    assert read.headers["content-disposition"] == "attachment; filename*=UTF-8''app%20%C3%A9.apk"
    assert part.status_code == 206
    assert part.content == content[MIB - 2 : 2 * MIB + 2]


async def test_a_body_of_unknown_length_is_stored_too(client: httpx.AsyncClient) -> None:
    content = some_bytes(MIB + 5)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    stored = await client.post("/api/artifacts", content=chunks())

    assert stored.json()["sha256"] == sha256_of(content)
    assert (await client.get(stored.headers["location"])).content == content


async def test_an_upload_goes_on_where_it_broke_off(client: httpx.AsyncClient) -> None:
    content = some_bytes(3 * MIB)
    address = await begin(client, **{"Content-Type": APK, "Upload-Length": str(len(content))})

    first = await append(client, address, 0, content[:700_000])
    told = await client.head(address)
    last = await append(client, address, 700_000, content[700_000:], last=True)
    after = await client.get(address)

    assert first.status_code == 204
    assert (told.status_code, told.headers["upload-offset"], told.headers["upload-complete"]) == (204, "700000", "?0")
    assert told.headers["upload-length"] == str(len(content))
    assert "max-size=" in told.headers["upload-limit"]
    assert last.status_code == 201, last.text
    assert last.json()["sha256"] == sha256_of(content)
    assert after.json()["complete"]
    assert after.json()["artifact"] == last.json()
    assert (await client.get(last.headers["location"])).content == content


async def test_what_came_before_a_cut_is_kept(client: httpx.AsyncClient, gateway: GatewayProcess) -> None:
    content, address = some_bytes(2 * MIB), await begin(client)
    host, port = gateway.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    key = client.headers["x-api-key"]
    head = (
        f"PATCH {address} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: {PARTIAL}\r\n"
        f"Upload-Offset: 0\r\nUpload-Complete: ?1\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content[: MIB + 5000])
    await writer.drain()

    async def offset() -> int:
        return int((await client.head(address)).headers["upload-offset"])

    await eventually(offset)
    writer.close()
    kept = await offset()
    finished = await append(client, address, kept, content[kept:], last=True)
    while finished.status_code == 409:  # the cut request's last bytes were written meanwhile
        kept = await offset()
        finished = await append(client, address, kept, content[kept:], last=True)

    assert kept >= MIB
    assert finished.status_code == 201, finished.text
    assert finished.json()["sha256"] == sha256_of(content)


async def test_a_part_for_another_place_is_refused_and_told_the_right_one(client: httpx.AsyncClient) -> None:
    address = await begin(client)
    await append(client, address, 0, b"abc")

    refused = await append(client, address, 2, b"c")

    assert refused.status_code == 409
    assert refused.headers["upload-offset"] == "3"
    assert (refused.json()["expected-offset"], refused.json()["provided-offset"]) == (3, 2)


async def test_nothing_is_added_to_what_is_complete(client: httpx.AsyncClient) -> None:
    address = await begin(client)
    assert (await append(client, address, 0, b"abc", last=True)).status_code == 201

    assert (await append(client, address, 3, b"d")).status_code == 409
    assert (await client.delete(address)).status_code == 409


async def test_a_wrong_digest_is_refused_and_nothing_is_stored(client: httpx.AsyncClient) -> None:
    content = some_bytes(100)
    wrong = b64encode(hashlib.sha256(b"other").digest()).decode()

    refused = await client.post("/api/artifacts", content=content, headers={"Repr-Digest": f"sha-256=:{wrong}:"})
    right = await client.post(f"/api/artifacts?sha256={sha256_of(content)}", content=content)

    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:ish:problem:digest-mismatch"
    assert right.status_code == 201


async def test_the_digest_of_an_upload_in_parts_is_checked_as_well(client: httpx.AsyncClient) -> None:
    content = some_bytes(2 * MIB)
    wrong = b64encode(bytes(32)).decode()
    address = await begin(client, **{"Repr-Digest": f"sha-256=:{wrong}:"})
    await append(client, address, 0, content[:MIB])

    refused = await append(client, address, MIB, content[MIB:], last=True)

    assert refused.status_code == 422
    assert (await client.get(address)).status_code == 404
    assert (await client.get(f"/api/artifacts/{sha256_of(content)}")).status_code == 404


async def test_the_same_bytes_are_kept_once_and_each_owner_has_them(
    client: httpx.AsyncClient, gateway: GatewayProcess, services: Session
) -> None:
    content = some_bytes(MIB)
    mine = await client.post("/api/artifacts?file_name=mine", content=content, headers={"Content-Type": APK})
    stranger = await create_key(services.postgres_url("ish_ops"), f"s{uuid4().hex[:8]}")
    async with gateway.client(stranger) as other:
        before = await other.get(mine.headers["location"])
        theirs = await other.post("/api/artifacts?file_name=theirs", content=content)
        listed = await other.get("/api/artifacts")

    assert before.status_code == 404
    assert theirs.json()["id"] == mine.json()["id"]
    [one] = listed.json()["items"]
    assert (one["file_name"], one["media_type"]) == ("theirs", "application/octet-stream")
    async with database(services, "ish_ops") as connection:
        states = await connection.fetch("select state from artifact_uploads where sha256 = $1", mine.json()["id"])
    assert sorted(row["state"] for row in states) == ["duplicate", "stored"]


async def test_an_upload_is_its_owners_alone(
    client: httpx.AsyncClient, gateway: GatewayProcess, services: Session
) -> None:
    address = await begin(client)
    stranger = await create_key(services.postgres_url("ish_ops"), f"s{uuid4().hex[:8]}")
    async with gateway.client(stranger) as other:
        answers = [
            await other.head(address),
            await other.get(address),
            await append(other, address, 0, b"x"),
            await other.delete(address),
        ]

    assert [answer.status_code for answer in answers] == [404, 404, 404, 404]


async def test_an_upload_is_given_up(client: httpx.AsyncClient) -> None:
    address = await begin(client)
    await append(client, address, 0, b"abc")

    assert (await client.delete(address)).status_code == 204
    assert (await client.head(address)).status_code == 404


async def test_artifacts_are_listed_newest_first_in_pages(client: httpx.AsyncClient) -> None:
    names = [(await client.post("/api/artifacts", content=some_bytes(20))).json()["id"] for _ in range(3)]

    first = (await client.get("/api/artifacts?limit=2")).json()
    second = (await client.get("/api/artifacts", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [one["id"] for one in first["items"] + second["items"]] == names[::-1]
    assert second["next_cursor"] is None


async def test_a_command_that_names_an_artifact_of_nobody_or_somebody_else_is_refused(
    client: httpx.AsyncClient, gateway: GatewayProcess, services: Session
) -> None:
    stored = (await client.post("/api/artifacts", content=some_bytes(20))).json()["id"]
    stranger = await create_key(services.postgres_url("ish_ops"), f"s{uuid4().hex[:8]}")
    install = {"action": "install", "artifact": stored}
    split = {"action": "install", "artifacts": [stored, "0" * 64]}
    batch = {"action": "batch", "actions": [{"action": "push", "path": "/sdcard/a", "artifact": "0" * 64}]}
    path = "/api/android/execute"
    async with gateway.client(stranger) as other:
        foreign = await other.post(path, json=install)

    assert foreign.status_code == 422
    assert foreign.json()["errors"][0]["field"] == "artifact"
    assert (await client.post(path, json=split)).status_code == 422
    assert (await client.post(path, json=batch)).status_code == 422
    assert (await client.post(path, json=install)).status_code == 202


async def test_uploads_have_a_limit_of_their_own(services: Session, key: str) -> None:
    with gateway_process(services, ISH_UPLOAD_LIMIT_BYTES=str(2 * MIB), ISH_BODY_LIMIT_BYTES="2048") as small:
        async with small.client(key) as client:

            async def too_much() -> AsyncIterator[bytes]:
                for _ in range(3):
                    yield bytes(MIB)

            announced = await client.post("/api/artifacts", content=bytes(3 * MIB))
            streamed = await client.post("/api/artifacts", content=too_much())
            begun = await client.post(
                "/api/artifacts", headers={"Upload-Complete": "?0", "Upload-Length": str(3 * MIB)}
            )
            fits = await client.post("/api/artifacts", content=some_bytes(2 * MIB))

    assert [announced.status_code, streamed.status_code, begun.status_code, fits.status_code] == [413, 413, 413, 201]


async def test_a_whole_upload_that_broke_off_leaves_nothing_open(client: httpx.AsyncClient, owner: str, gateway: GatewayProcess, services: Session) -> None:  # fmt: skip
    host, port = gateway.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/artifacts HTTP/1.1\r\nHost: x\r\nX-API-Key: {client.headers['x-api-key']}\r\nContent-Length: 100000\r\n\r\n"
    writer.write(head.encode() + b"x" * 5000)
    await writer.drain()

    async def is_in(state: str) -> bool:
        async with database(services, "ish_ops") as connection:
            rows = await connection.fetch("select state from artifact_uploads where owner = $1", owner)
        return [row["state"] for row in rows] == [state]

    await eventually(lambda: is_in("open"))
    writer.close()
    await eventually(lambda: is_in("discarded"))


@pytest.mark.parametrize("uploads", [12])
async def test_many_uploads_at_once_do_not_fill_the_gateways_memory(
    services: Session, gateway: GatewayProcess, uploads: int
) -> None:
    identity = gateway.process.identity
    assert identity is not None
    process = psutil.Process(identity.pid)
    before = process.memory_info().rss
    peak = before
    size = 16 * MIB

    async def send() -> int:
        async def chunks() -> AsyncIterator[bytes]:
            nonlocal peak
            for _ in range(size // MIB):
                peak = max(peak, process.memory_info().rss)
                yield some_bytes(MIB)

        key = await create_key(services.postgres_url("ish_ops"), f"m{uuid4().hex[:8]}")
        async with gateway.client(key) as client:
            return (await client.post("/api/artifacts", content=chunks(), timeout=120)).status_code

    assert await asyncio.gather(*(send() for _ in range(uploads))) == [201] * uploads
    assert peak - before < uploads * size / 2
