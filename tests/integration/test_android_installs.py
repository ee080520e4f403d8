"""Apps are installed from artifacts, in one piece or in splits; what the phone refuses is told with its own code."""

import hashlib
from typing import Any

import pytest

from contracts.errors import ErrorCode, Permanent
from ops.simulators.phone.apk import write_apk
from tests.integration.one_phone import OnePhone

PACKAGE = "org.example.app"
MIB = 1024 * 1024


def keep(phone: OnePhone, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    phone.artifacts[sha256] = content
    return sha256


async def install(phone: OnePhone, content: bytes, **fields: Any) -> dict[str, Any]:
    return await phone.run(action="install", artifact=keep(phone, content), **fields)


async def refusal(phone: OnePhone, content: bytes, **fields: Any) -> dict[str, Any]:
    failure = await phone.failure(action="install", artifact=keep(phone, content), **fields)
    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.NONZERO_EXIT
    assert failure.details["install_error"] in failure.message
    assert (await phone.shell("ls /data/local/tmp")).split() == []
    return failure.details


async def test_a_real_apks_size_is_streamed_to_the_phone_and_installed(phone: OnePhone) -> None:
    assert await install(phone, write_apk(PACKAGE, padding=bytes(20 * MIB))) == {"installed": True}

    [pushed] = phone.effects("push")
    assert pushed["size_bytes"] > 20 * MIB
    assert (await phone.shell("ls /data/local/tmp")).split() == []


async def test_the_fields_of_an_install_are_the_flags_of_the_package_manager(phone: OnePhone) -> None:
    await install(phone, write_apk(PACKAGE), allow_test=True, allow_downgrade=True, grant_permissions=True)
    await install(phone, write_apk("org.example.other"), replace=False)

    assert [effect["flags"] for effect in phone.effects("install")] == [["-d", "-g", "-r", "-t"], ["-R"]]


async def test_an_app_for_tests_needs_to_be_allowed(phone: OnePhone) -> None:
    apk = write_apk(PACKAGE, test_only=True)

    refused = await refusal(phone, apk)

    assert refused["install_error"] == "INSTALL_FAILED_TEST_ONLY"
    assert "allow_test: true" in refused["hint"]
    assert await install(phone, apk, allow_test=True) == {"installed": True}


async def test_an_older_version_needs_to_be_allowed(phone: OnePhone) -> None:
    await install(phone, write_apk(PACKAGE, version_code=2))

    refused = await refusal(phone, write_apk(PACKAGE, version_code=1))

    assert refused["install_error"] == "INSTALL_FAILED_VERSION_DOWNGRADE"
    assert "older than current 2" in refused["reason"]
    assert await install(phone, write_apk(PACKAGE, version_code=1), allow_downgrade=True) == {"installed": True}


async def test_an_app_that_is_there_is_not_replaced_unless_that_was_asked_for(phone: OnePhone) -> None:
    await install(phone, write_apk(PACKAGE))

    assert (await refusal(phone, write_apk(PACKAGE), replace=False))["install_error"] == "INSTALL_FAILED_ALREADY_EXISTS"


async def test_another_signers_app_is_not_replaced(phone: OnePhone) -> None:
    await install(phone, write_apk(PACKAGE, signer=b"me"))

    refused = await refusal(phone, write_apk(PACKAGE, signer=b"another"))

    assert refused["install_error"] == "INSTALL_FAILED_UPDATE_INCOMPATIBLE"
    assert "uninstall it first" in refused["hint"]


@pytest.mark.parametrize(
    "said",
    ["INSTALL_FAILED_USER_RESTRICTED: Install canceled by user", "INSTALL_FAILED_INSUFFICIENT_STORAGE"],
)
async def test_whatever_the_phone_refuses_with_is_a_field(phone: OnePhone, said: str) -> None:
    phone.device.control.change(install_refusal=said)

    assert (await refusal(phone, write_apk(PACKAGE)))["install_error"] == said.partition(":")[0]


async def test_an_old_phone_that_exits_0_and_prints_the_path_first_is_understood(phone: OnePhone) -> None:
    phone.device.control.change(old_installer=True)

    refused = await refusal(phone, write_apk(PACKAGE, test_only=True))
    first = await install(phone, write_apk(PACKAGE), replace=False)
    again = await refusal(phone, write_apk(PACKAGE), replace=False)

    assert (refused["install_error"], refused["exit_code"]) == ("INSTALL_FAILED_TEST_ONLY", 0)
    assert first == {"installed": True}
    assert again["install_error"] == "INSTALL_FAILED_ALREADY_EXISTS"


async def test_the_parts_of_a_split_app_are_installed_together(phone: OnePhone) -> None:
    parts = [
        write_apk(PACKAGE, split_required=True),
        write_apk(PACKAGE, split="config.arm64_v8a"),
        write_apk(PACKAGE, split="config.en"),
    ]

    answer = await phone.run(action="install", artifacts=[keep(phone, part) for part in parts], allow_test=True)

    assert answer == {"installed": True}
    [effect] = phone.effects("install")
    assert effect["splits"] == ["config.arm64_v8a", "config.en"]
    assert "-t" in effect["flags"]
    assert phone.device.install_sessions == {}
    assert (await phone.shell("ls /data/local/tmp")).split() == []


async def test_a_split_app_is_not_installed_in_part(phone: OnePhone) -> None:
    base, split = write_apk(PACKAGE, split_required=True), write_apk("org.example.other", split="config.en")

    alone = await refusal(phone, base)
    wrong = await phone.failure(action="install", artifacts=[keep(phone, base), keep(phone, split)])

    assert alone["install_error"] == "INSTALL_FAILED_MISSING_SPLIT"
    assert "artifacts" in alone["hint"]
    assert wrong.details["install_error"] == "INSTALL_FAILED_INVALID_APK"
    assert phone.device.install_sessions == {}
    assert phone.effects("install") == []


async def test_what_a_dead_worker_left_is_removed_before_the_next_install(phone: OnePhone) -> None:
    await phone.shell("mkdir /data/local/tmp/ish.install")
    await phone.shell("echo half > /data/local/tmp/ish.install/7.apk")

    await install(phone, write_apk(PACKAGE))

    assert (await phone.shell("ls /data/local/tmp")).split() == []
