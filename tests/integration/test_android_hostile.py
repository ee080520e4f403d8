import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.android import shell
from contracts.android.command import action_from, action_from_command
from tests.integration.one_phone import NOTES, OnePhone, one_phone
from workers.android.adb.server import AdbServer
from workers.android.keyboard import ADB_KEYBOARD

PIECES = (
    *("; reboot", "$(id)", "`id`", "&& input tap 9 9", "|| input tap 9 9", "| sh", "> /sdcard/x", "< /dev/null", "& "),
    *("'", '"', "\\", "\\'", "'; input tap 9 9; '", '"; input tap 9 9; "', "\n input tap 9 9\n", "'\"'\"'"),
    *("%s", "%%s", "%", "s", "*", "?", "[a-z]", "{a,b}", "~", "#", "!", "$HOME", "${IFS}", "-n", "--", " ", "\t"),
    *(
        "\r",
        "\r\n",
        "\x07",
        "\x1b[2J",
        "\x7f",
        "é",
        "e\u0301",
        "日本",
        "🙂",
        "👩‍👩‍👧",
        "שלום",
        "\u202e",
        "\u200b",
        "\ufeff",
    ),
    *("fi", "then", "else", "done", "EOF", "http://a/?b=1&c=2#d", "../", "..", "a" * 300, "日" * 200, "a", "B", "0"),
)
ROUNDS = 300
"""Of each kind; five kinds."""
FULL_ROUNDS = 3000


@pytest.fixture
async def phone(server: AdbServer, tmp_path: Path) -> AsyncIterator[OnePhone]:
    async with one_phone(server, tmp_path) as connected:
        await connected.shell(f"ime enable {ADB_KEYBOARD} && ime set {ADB_KEYBOARD}")
        await connected.run(action="start_app", package=NOTES)
        yield connected


class Corpus:
    """Hostile strings, the same ones each time."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def text(self, *, most: int = 6) -> str:
        return "".join(self._random.choices(PIECES, k=self._random.randint(1, most)))

    def package(self) -> str:
        return self._random.choice(["com.ish.notes", "a.b", "", "com."]) + self.text(most=2)

    def path(self) -> str:
        return self._random.choice(["/sdcard/", "/sdcard/Download/", "/data/local/tmp/", "/", ""]) + self.text(most=3)

    def url(self) -> str:
        return self._random.choice(["https://", "http://a.b/", "intent://", "javascript:"]) + self.text()


def effects_since(phone: OnePhone, count: int) -> list[dict[str, object]]:
    return [effect for effect in phone.device.effects.latest if effect["n"] > count]


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(FULL_ROUNDS, marks=pytest.mark.full)])
async def test_hostile_texts_and_urls_are_typed_and_do_nothing_else(phone: OnePhone, rounds: int) -> None:
    corpus = Corpus(rounds)
    for turn in range(rounds):
        text = corpus.url() if turn % 3 == 0 else corpus.text()
        phone.device.screen.typed.clear()
        before = phone.device.effects.count

        await phone.run(action="text", text=text)

        done = effects_since(phone, before)
        assert {effect["action"] for effect in done} == {"text"}, text
        assert "".join(str(effect["text"]) for effect in done) == text
        assert phone.note == text


async def test_hostile_paths_are_written_as_named_or_refused(phone: OnePhone) -> None:
    corpus = Corpus(1)
    written = 0
    for _ in range(ROUNDS):
        path = corpus.path()
        before = phone.device.effects.count
        fields = {"action": "push", "path": path, "content_base64": "eA=="}
        try:
            action_from(fields)
        except ValueError:
            assert phone.device.effects.count == before
            continue

        await phone.run(**fields)

        [effect] = [one for one in effects_since(phone, before) if one["action"] != "make_folder"]
        assert (effect["action"], effect["path"]) == ("push", path)
        pulled = await phone.read(action="pull", path=path)
        assert pulled.artifacts[0].content == b"x"
        written += 1
    assert written > ROUNDS / 10


async def test_hostile_packages_are_refused_and_no_phone_is_asked(phone: OnePhone) -> None:
    corpus = Corpus(2)
    before = phone.device.effects.count
    refused = 0
    for turn in range(ROUNDS):
        package = corpus.package()
        name = ("start_app", "stop_app", "uninstall")[turn % 3]
        try:
            action = action_from({"action": name, "package": package})
        except ValueError:
            refused += 1
            continue
        assert set(action.model_dump()["package"]) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_."
        )
    assert refused > ROUNDS / 2
    assert phone.device.effects.count == before


async def test_a_hostile_command_line_does_what_it_says_or_is_denied(phone: OnePhone) -> None:
    corpus = Corpus(3)
    ran = denied = 0
    for turn in range(ROUNDS):
        program = ("input text", "am start -a android.intent.action.VIEW -d", "echo")[turn % 3]
        line = f"shell {program} {corpus.url() if turn % 3 == 1 else corpus.text(most=3)}"
        try:
            action = action_from_command(line)
        except ValueError:
            denied += 1
            continue
        phone.device.screen.typed.clear()
        before = phone.device.effects.count

        await phone.run(**action.model_dump())

        done = effects_since(phone, before)
        if action.action == "text":
            assert {effect["action"] for effect in done} == {"text"}, line
            assert phone.note == shell.split(line)[-1].replace("%s", " ")  # as adb has it
        elif action.action == "open_url":
            assert [(effect["action"], effect["url"]) for effect in done] == [("open_address", action.url)], line
            await phone.run(action="start_app", package=NOTES)
        else:
            assert (action.action, done) == ("shell", []), line
        ran += 1
    assert ran > 10
    assert denied > ROUNDS / 2


async def test_hostile_selectors_and_filters_only_look(phone: OnePhone) -> None:
    corpus = Corpus(4)
    for turn in range(ROUNDS // 5):
        before = phone.device.effects.count
        name = ("text", "id", "description_contains", "class_name")[turn % 4]

        await phone.run(action="find", selector={name: corpus.text()})

        assert {effect["action"] for effect in effects_since(phone, before)} <= {"remove_file"}
