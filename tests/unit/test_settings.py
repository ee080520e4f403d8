"""One line for a wrong setting: which variable, which rule, and never the value."""

from pathlib import Path

import pytest

from contracts.settings import REFUSED_SECRETS, read_settings


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("ISH_GATEWAY_PORT", "http", "ISH_GATEWAY_PORT: must be a whole number"),
        ("ISH_GATEWAY_PORT", "70000", "ISH_GATEWAY_PORT: must be at most 65535"),
        ("ISH_LEASE_SECONDS", "inf", "ISH_LEASE_SECONDS: must be at most 300"),
        ("ISH_DELIVERY_ALLOW_HTTP", "maybe", "ISH_DELIVERY_ALLOW_HTTP: must be true or false"),
        ("ISH_LOG_LEVEL", "LOUD", "ISH_LOG_LEVEL: must be one of DEBUG, INFO, WARNING, ERROR"),
        ("ISH_LOG_FORMAT", "xml", "ISH_LOG_FORMAT: must be one of auto, json, text"),
        ("ISH_KILL_POINT", "sometimes", "ISH_KILL_POINT: must match "),
        ("ISH_HEARTBEAT_SECONDS", "5", "at most half of ISH_LEASE_SECONDS"),
    ],
)
def test_a_wrong_setting_ends_the_process_with_one_line(
    name: str, value: str, rule: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as stopped:
        read_settings()

    line = capsys.readouterr().err
    assert stopped.value.code == 2
    assert line.startswith("ish: ")
    assert rule in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("secret", sorted(REFUSED_SECRETS))
@pytest.mark.parametrize(
    ("name", "form"), [("ISH_API_KEY", "{}"), ("ISH_POSTGRES_URL", "postgresql://x:{}@localhost/ish")]
)
def test_the_old_systems_printed_secrets_are_refused_and_not_repeated(
    secret: str, name: str, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, form.format(secret))

    with pytest.raises(SystemExit):
        read_settings()

    line = capsys.readouterr().err
    assert name in line
    assert secret not in line


def test_a_setting_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "url"
    file.write_text("redis://:secret@127.0.0.1/0\n", encoding="utf-8")
    monkeypatch.setenv("ISH_REDIS_URL_FILE", str(file))

    assert read_settings().redis_url == "redis://:secret@127.0.0.1/0"


def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ISH_AMQP_URL_FILE", str(tmp_path / "nowhere"))

    with pytest.raises(SystemExit):
        read_settings()

    assert "ISH_AMQP_URL_FILE: cannot read" in capsys.readouterr().err


def test_a_process_that_needs_a_setting_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(amqp_url="").require("amqp_url")

    assert "ISH_AMQP_URL is not set" in capsys.readouterr().err
