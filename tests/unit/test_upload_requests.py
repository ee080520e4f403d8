import hashlib
from base64 import b64encode
from typing import Any

import pytest

from gateway.http.problems import Problem
from gateway.http.upload_request import PARTIAL, UploadRequest, read_upload

APK = "application/vnd.android.package-archive"
DIGEST = hashlib.sha256(b"x").digest()
ENCODED = b64encode(DIGEST).decode()


def read(query: str = "", *, partial: bool = False, **headers: Any) -> UploadRequest:
    given = {name.replace("_", "-").lower().encode(): value.encode() for name, value in headers.items()}
    return read_upload(given, query.encode(), partial=partial)


def refusal(query: str = "", *, partial: bool = False, **headers: Any) -> str:
    with pytest.raises(Problem) as caught:
        read(query, partial=partial, **headers)
    return " ".join([*(error["field"] for error in caught.value.errors), caught.value.detail])


def test_a_plain_post_is_a_whole_upload() -> None:
    asked = read("file_name=app.apk", Content_Type=f"{APK}; x=y", Content_Length="7")

    assert (asked.media_type, asked.resumable, asked.complete) == (APK, False, True)
    assert (asked.offset, asked.size_bytes, asked.sha256, asked.file_name) == (None, 7, None, "app.apk")


def test_an_upload_is_begun_without_any_bytes() -> None:
    asked = read(Upload_Complete="?0", Upload_Length="100", Content_Length="0")

    assert (asked.resumable, asked.complete, asked.size_bytes, asked.least_bytes) == (True, False, 100, 100)


def test_the_last_part_tells_the_length_of_the_whole() -> None:
    asked = read(partial=True, Content_Type=PARTIAL, Upload_Offset="60", Upload_Complete="?1", Content_Length="40")

    assert (asked.complete, asked.offset, asked.size_bytes) == (True, 60, 100)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Repr_Digest", f"sha-256=:{ENCODED}:"),
        ("Repr_Digest", f"sha-512=:AAAA:, sha-256=:{ENCODED}:"),
        ("Digest", f"SHA-256={ENCODED}"),
        ("Content_Digest", f"sha-256=:{ENCODED}:"),
    ],
)
def test_a_digest_is_declared_in_each_of_the_usual_ways(name: str, value: str) -> None:
    headers: dict[str, Any] = {name: value}

    assert read(**headers).sha256 == DIGEST.hex()


def test_a_digest_is_declared_in_hexadecimal() -> None:
    assert read(f"sha256={DIGEST.hex().upper()}").sha256 == DIGEST.hex()


def test_the_digest_of_a_part_is_not_that_of_the_whole() -> None:
    content_digest = f"sha-256=:{ENCODED}:"

    asked = read(partial=True, Content_Type=PARTIAL, Upload_Offset="6", Content_Digest=content_digest)

    assert asked.sha256 is None


@pytest.mark.parametrize("given", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/javascript", ""])
def test_what_a_browser_might_run_is_kept_as_bytes(given: str) -> None:
    assert read(Content_Type=given).media_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("query", "headers", "named"),
    [
        ("sha256=ab", {}, "sha256"),
        ("file_name=a/b", {}, "file_name"),
        ("file_name=", {}, "file_name"),
        ("", {"Repr_Digest": "md5=:AAAA:"}, "Repr-Digest"),
        ("", {"Upload_Complete": "yes"}, "Upload-Complete"),
        ("", {"Upload_Length": "-1"}, "Upload-Length"),
        ("", {"Upload_Length": "9", "Content_Length": "8"}, "Upload-Length"),
        ("", {"Content_Type": "multipart/form-data; boundary=x"}, "not a form"),
        ("", {"Content_Encoding": "gzip"}, "Content-Encoding"),
        ("", {"Content_Type": "nonsense"}, "Content-Type"),
    ],
)
def test_what_breaks_a_rule_is_named(query: str, headers: dict[str, Any], named: str) -> None:
    assert named in refusal(query, **headers)


def test_a_part_says_where_it_begins_and_what_it_is() -> None:
    assert "Upload-Offset" in refusal(partial=True, Content_Type=PARTIAL)
    assert PARTIAL in refusal(partial=True, Content_Type=APK, Upload_Offset="0")
