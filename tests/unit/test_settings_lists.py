"""Every setting that takes a list takes two values, and says in one line which value is wrong."""

from typing import Any

import pytest
from pydantic import ValidationError

from contracts.addresses import read_addresses, write_addresses
from contracts.settings import Settings, read_settings
from ops.stack.addresses import Given
from ops.stack.layout import Layout
from workers.android.monitor.devices import parse_servers

LISTS = {"adb_servers": ("127.0.0.1:6037,127.0.0.1:6038", "127.0.0.1:6037,127.0.0.1:x")}
"""Two good values of each setting that takes a list, and a good one beside a bad one."""


def test_every_setting_that_takes_a_list_is_tried_here() -> None:
    listed = {name for name, field in Settings.model_fields.items() if "separated" in (field.description or "")}
    assert listed == set(LISTS)


@pytest.mark.parametrize("name", LISTS)
def test_two_values_reach_every_reader(name: str) -> None:
    values: dict[str, Any] = {name: LISTS[name][0]}
    settings = Settings(**values)

    assert [str(server) for server in parse_servers(settings.adb_servers)] == LISTS[name][0].split(",")
    assert getattr(Given.of(settings, Layout.of(settings)), name) == LISTS[name][0]


@pytest.mark.parametrize("name", LISTS)
def test_a_wrong_value_is_named_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    values: dict[str, Any] = {name: LISTS[name][1]}
    with pytest.raises(ValidationError):
        Settings(**values)
    with pytest.raises(SystemExit):
        read_settings(**values)

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"ISH_{name.upper()}" in said
    assert "'127.0.0.1:x' is not host:port" in said


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", []),
        (" a , b:7,", [("a", 5037), ("b", 7)]),
        ("[::1]:5038,[::1]", [("::1", 5038), ("::1", 5037)]),
        ("a:7,a:7", [("a", 7)]),
    ],
)
def test_addresses_are_read_and_written(text: str, addresses: list[tuple[str, int]]) -> None:
    assert read_addresses(text, default_port=5037) == addresses
    assert read_addresses(write_addresses(addresses), default_port=1) == addresses


@pytest.mark.parametrize(
    "text", ["a:b", "a:0", "a:65536", ":5037", "::1", "::1:5037", "a b", "http://a:1", "[::1]x", "[]:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        read_addresses(text, default_port=5037)
