import base64
import hashlib
import random

import pytest

from contracts.errors import ErrorCode, Permanent
from ops.simulators.phone.apk import write_apk
from tests.integration.one_phone import BOTH_ADBS, OnePhone

CONTENT = random.Random(7).randbytes(300_000)


pytestmark = BOTH_ADBS


def keep(phone: OnePhone, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    phone.artifacts[sha256] = content
    return sha256


@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["empty", "small", "large"])
async def test_a_file_that_was_pushed_is_pulled_as_it_was(phone: OnePhone, content: bytes) -> None:
    path = "/sdcard/Download/it's $(here) `now`; 日本.bin"

    pushed = await phone.run(action="push", path=path, content_base64=base64.b64encode(content).decode())
    pulled = await phone.read(action="pull", path=path)

    assert pushed == {"path": path, "size_bytes": len(content)}
    [artifact] = pulled.artifacts
    assert artifact.content == content
    assert pulled.output["artifact"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert artifact.content_type == "application/octet-stream"


async def test_an_artifact_is_pushed_and_nobody_elses(phone: OnePhone) -> None:
    await phone.run(action="push", path="/data/local/tmp/a.png", artifact=keep(phone, CONTENT))
    pulled = await phone.read(action="pull", path="/data/local/tmp/a.png")
    failure = await phone.failure(action="push", path="/sdcard/b", artifact="0" * 64)

    assert pulled.artifacts[0].content == CONTENT
    assert pulled.artifacts[0].content_type == "image/png"
    assert isinstance(failure, Permanent)
    assert "no artifact" in failure.message
    assert len(phone.effects("push")) == 1


@pytest.mark.parametrize("path", ["/sdcard/nothing", "/sdcard/Download"])
async def test_what_is_no_file_cannot_be_pulled(phone: OnePhone, path: str) -> None:
    failure = await phone.failure(action="pull", path=path)

    assert failure.code is ErrorCode.NONZERO_EXIT


async def test_a_file_larger_than_an_artifact_may_be_is_not_pulled(phone: OnePhone) -> None:
    phone.limit_bytes = 1000
    await phone.run(action="push", path="/sdcard/x", content_base64=base64.b64encode(bytes(1001)).decode())

    assert (await phone.failure(action="pull", path="/sdcard/x")).code is ErrorCode.TRUNCATED


async def test_a_phone_whose_storage_is_full_takes_no_file(phone: OnePhone) -> None:
    phone.device.control.change(writes_files=False)

    failure = await phone.failure(action="push", path="/sdcard/x", content_base64="eA==")

    assert isinstance(failure, Permanent)
    assert phone.effects("push") == []


async def test_an_app_is_installed_from_an_artifact_and_removed_again(phone: OnePhone) -> None:
    package = "org.example.app"

    assert await phone.run(action="install", artifact=keep(phone, write_apk(package))) == {"installed": True}
    assert package in (await phone.run(action="list_packages"))["packages"]
    assert await phone.run(action="uninstall", package=package) == {"package": package, "was_installed": True}
    assert await phone.run(action="uninstall", package=package) == {"package": package, "was_installed": False}
    assert package not in (await phone.run(action="list_packages"))["packages"]
    assert (await phone.shell("ls /data/local/tmp")).split() == []


async def test_an_app_is_installed_from_a_file_on_the_phone(phone: OnePhone) -> None:
    path = "/data/local/tmp/an app.apk"
    await phone.run(action="push", path=path, artifact=keep(phone, write_apk("org.example.app")))

    assert (await phone.run(action="install", path=path, grant_permissions=True)) == {"installed": True}


async def test_what_is_no_app_is_refused_by_the_phone(phone: OnePhone) -> None:
    failure = await phone.failure(action="install", artifact=keep(phone, b"no apk"))

    assert isinstance(failure, Permanent)
    assert "INSTALL_PARSE_FAILED" in failure.message
    assert phone.effects("install") == []


async def test_a_record_is_a_movie_and_leaves_nothing_on_the_phone(phone: OnePhone) -> None:
    reading = await phone.read(action="record", seconds=1)

    [artifact] = reading.artifacts
    assert artifact.content_type == "video/mp4"
    assert artifact.content[4:8] == b"ftyp"
    assert reading.output["artifact"]["seconds"] == 1
    assert (await phone.shell("ls /data/local/tmp")).split() == []
