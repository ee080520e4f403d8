"""Addresses that are given and answer nothing are named before anybody waits for them."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ops.stack.addresses import Given
from ops.stack.silent import silent


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_nothing_is_said_of_what_the_stack_starts_itself() -> None:
    assert silent(Given.nothing()) == []


def test_each_silent_adb_server_is_named(dead_port: int) -> None:
    given = replace(Given.nothing(), adb_servers=f"127.0.0.1:{dead_port},127.0.0.2:{dead_port}")

    assert [one.partition(",")[0] for one in silent(given)] == [
        f"phones: no adb server answers at 127.0.0.1:{dead_port}",
        f"phones: no adb server answers at 127.0.0.2:{dead_port}",
    ]


def test_a_silent_redis_is_named_without_its_password(dead_port: int) -> None:
    [sentence] = silent(replace(Given.nothing(), redis_url=f"redis://user:hush@127.0.0.1:{dead_port}/0"))

    assert sentence.startswith(f"Redis: nothing answers at 127.0.0.1:{dead_port}")
    assert "ISH_REDIS_URL" in sentence
    assert "hush" not in sentence
