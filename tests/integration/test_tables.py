"""The one writer of rows: a column that is added in one place is written by everyone who writes commands."""

import json
import sys
from collections.abc import Iterator
from secrets import token_hex
from subprocess import run

import psycopg
import pytest

from contracts import schema
from ops.stack.session import Session
from tests.integration.made_up_column import WRITERS


@pytest.fixture
def empty_database(services: Session) -> Iterator[str]:
    """Address, as its owner, of a database with our tables that nobody else uses."""
    name = f"tables_{token_hex(4)}"
    administrator = services.addresses.postgres_administrator
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(f"create database {name} owner ish_owner")
    url = services.postgres_url("ish_owner").rpartition("/")[0] + f"/{name}"
    schema.apply(url)
    yield url
    with psycopg.connect(administrator, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


def test_a_new_column_of_a_command_is_added_in_one_place(empty_database: str) -> None:
    program = [sys.executable, "-m", "tests.integration.made_up_column", empty_database]
    ended = run(program, capture_output=True, text=True, check=False, timeout=120)  # our own program

    assert ended.returncode == 0, ended.stderr
    written = json.loads(ended.stdout)
    assert set(written) == set(WRITERS)
    assert {writer: value for writer, (id_, value) in written.items() if value != f"made up for {id_}"} == {}
