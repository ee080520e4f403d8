"""What only writers of the same role can have written is told from anything else."""

import time

import pytest

from contracts.seal import Seal

WORKER = "postgresql://ish_worker:a%2Fb@127.0.0.1/ish"


def test_a_sealed_value_is_opened_by_who_has_the_same_password_wherever_the_database_is() -> None:
    sealed = Seal.of(WORKER).close("ish:answer:1", b"42", keep_seconds=60)

    assert Seal.of(WORKER.replace("127.0.0.1", "db.example:6432")).open("ish:answer:1", sealed) == b"42"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ish_worker:other@127.0.0.1/ish",
        "postgresql://ish_gateway:a%2Fb@127.0.0.1/ish",
        "redis://:x@127.0.0.1",
    ],
)
def test_another_roles_or_passwords_seal_is_none(url: str) -> None:
    sealed = Seal.of(url).close("ish:answer:1", b"42", keep_seconds=60)

    assert Seal.of(WORKER).open("ish:answer:1", sealed) is None


def test_a_value_moved_changed_cut_or_planted_is_none() -> None:
    it = Seal.of(WORKER)
    sealed = it.close("ish:answer:1", b"42", keep_seconds=60)

    assert it.open("ish:answer:2", sealed) is None
    assert [it.open("ish:answer:1", sealed[:end]) for end in range(len(sealed))] == [None] * len(sealed)
    for place in range(len(sealed)):
        changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        assert it.open("ish:answer:1", changed) is None
    assert it.open("ish:answer:1", b'{"text":"planted"}') is None


def test_a_value_kept_past_its_time_and_put_back_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Seal.of(WORKER)
    sealed = it.close("ish:answer:1", b"42", keep_seconds=60)
    now = time.time()

    monkeypatch.setattr(time, "time", lambda: now + 61)

    assert it.open("ish:answer:1", sealed) is None
