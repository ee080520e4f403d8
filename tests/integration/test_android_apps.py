import base64

import pytest

from contracts.errors import ErrorCode, Permanent
from ops.simulators.phone.apk import write_apk
from tests.integration.one_phone import NOTES, OnePhone

PERPLEXITY = "ai.perplexity.app.android"
KEYBOARD = "com.android.adbkeyboard"


@pytest.mark.parametrize(
    "behaviour",
    [
        {},
        {"hardware_keys": False},
        {"several_icons": True},
        {"knows_cmd": False},
        {"knows_cmd": False, "hardware_keys": False},
        {"user": 10, "closed_users": (150,)},
        {"vendor_noise": True},
    ],
    ids=str,
)
async def test_an_app_starts_as_by_its_icon_on_every_kind_of_phone(
    phone: OnePhone, behaviour: dict[str, object]
) -> None:
    phone.device.control.change(**behaviour)

    await phone.run(action="start_app", package=NOTES)

    assert [effect["package"] for effect in phone.effects("start_app")] == [NOTES]
    assert (await phone.run(action="current_app"))["package"] == NOTES


@pytest.mark.parametrize(
    ("package", "installed", "sentence"),
    [
        ("com.none.such", False, "com.none.such is not installed on this phone for its current user (0)"),
        (KEYBOARD, True, f"{KEYBOARD} has no activity that a launcher shows; say which one to start with `activity`"),
    ],
)
async def test_what_cannot_be_started_by_an_icon_is_told_as_it_is(
    phone: OnePhone, package: str, *, installed: bool, sentence: str
) -> None:
    failure = await phone.failure(action="start_app", package=package)

    assert isinstance(failure, Permanent)
    assert failure.code is ErrorCode.NONZERO_EXIT
    assert failure.message == sentence
    assert failure.details["installed"] is installed
    assert phone.effects() == []


async def test_the_monkeys_own_reason_is_told_where_only_it_can_start_apps(phone: OnePhone) -> None:
    phone.device.control.change(hardware_keys=False)

    failure = await phone.failure(
        action="shell", argv=["monkey", "-p", NOTES, "-c", "android.intent.category.LAUNCHER", "1"]
    )

    assert failure.details["exit_code"] == 251
    assert failure.message.endswith("** SYS_KEYS has no physical keys but with factor 2.0%.")


@pytest.mark.parametrize("user", [0, 10])
async def test_packages_are_listed_and_removed_for_the_current_user(phone: OnePhone, user: int) -> None:
    phone.device.control.change(user=user, closed_users=(150,))

    listed = (await phone.run(action="list_packages", kind="third_party"))["packages"]
    by_line = await phone.run(action="shell", argv=["pm", "list", "packages", "-3"])
    removed = await phone.run(action="uninstall", package=PERPLEXITY)

    assert PERPLEXITY in listed
    assert f"package:{PERPLEXITY}" in by_line["stdout"].splitlines()
    assert removed["was_installed"] is True
    assert PERPLEXITY not in (await phone.run(action="list_packages"))["packages"]
    assert f"--user {user}" in " ".join(phone.effects("uninstall")[0]["argv"])


async def test_another_users_packages_are_denied_with_the_phones_reason(phone: OnePhone) -> None:
    phone.device.control.change(closed_users=(150,))

    failure = await phone.failure(action="shell", argv=["pm", "list", "packages", "--user", "150"])

    assert failure.code is ErrorCode.DENIED
    assert failure.message.endswith("java.lang.SecurityException: Shell does not have permission to access user 150")


async def test_a_part_of_the_phone_is_not_hidden_from_its_user_instead_of_being_refused(phone: OnePhone) -> None:
    failure = await phone.failure(action="uninstall", package=NOTES)

    assert "DELETE_FAILED" in failure.message
    assert "--user" not in str(phone.effects("uninstall"))


async def test_an_address_opens_with_all_of_its_characters(phone: OnePhone) -> None:
    url = "https://example.org/?a=1&b='2'#c"

    assert (await phone.run(action="open_url", url=url)) == {"url": url}

    assert [effect["url"] for effect in phone.effects("open_address")] == [url]
    failure = await phone.failure(action="open_url", url="nosuch://page")
    assert "unable to resolve" in failure.message


async def test_an_app_is_installed_for_the_current_user(phone: OnePhone) -> None:
    phone.device.control.change(user=10, closed_users=(150,))
    apk = base64.b64encode(write_apk("org.example.thing")).decode()
    await phone.run(action="push", path="/data/local/tmp/a.apk", content_base64=apk)

    await phone.run(action="install", path="/data/local/tmp/a.apk")

    assert "org.example.thing" in (await phone.run(action="list_packages"))["packages"]


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "tap", "x": 1, "y": 2},
        {"action": "key", "key": "HOME"},
        {"action": "text", "text": "日本"},
        {"action": "list_packages"},
        {"action": "stop_app", "package": NOTES},
        {"action": "uninstall", "package": PERPLEXITY},
        {"action": "ui_dump"},
        {"action": "status"},
        {"action": "shell", "argv": ["pm", "path", NOTES]},
    ],
    ids=lambda fields: fields["action"],
)
async def test_a_vendors_stack_trace_before_a_good_answer_is_read_past(
    phone: OnePhone, fields: dict[str, object]
) -> None:
    phone.device.control.change(vendor_noise=True, user=10)

    await phone.run(**fields)


async def test_behind_a_vendors_stack_trace_the_reason_is_still_found(phone: OnePhone) -> None:
    phone.device.control.change(vendor_noise=True)

    failure = await phone.failure(action="start_app", package=NOTES, activity=".Nothing")
    assert failure.message.endswith("Error: Activity class {com.ish.notes/.Nothing} does not exist.")
