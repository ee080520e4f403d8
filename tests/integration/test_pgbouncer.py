"""Behind a real PgBouncer: in session mode everything works, in the other modes each process ends with one line."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest
from typer.testing import CliRunner

from contracts.database import SERVER_SETTINGS, open_pool
from contracts.database_sessions import UnsuitablePooler, check_pooler
from ops.cli.main import app
from ops.stack import packages
from ops.stack.binaries import default_cache_dir
from ops.stack.probes import postgres_answers
from ops.stack.session import Session
from tests.integration.gateway_process import DEADLINE_SECONDS, free_port

CONFIGURATION = """\
[databases]
ish = host={host} port={port} dbname=ish
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = 10
max_client_conn = 100
"""


@contextmanager
def pgbouncer(services: Session, mode: str) -> Iterator[int]:
    """One of its own, in front of the tests' PostgreSQL; yields its port."""
    root = packages.unpacked(default_cache_dir(), "pgbouncer", package="pgbouncer", relocate=lambda _: None, say=print)
    urls = [urlsplit(services.postgres_url(role)) for role in ("ish_gateway", "ish_worker", "ish_outbox", "ish_ops")]
    folder, port = Path(tempfile.mkdtemp(prefix="ish-pgbouncer-")), free_port()
    folder.chmod(0o755)
    try:
        users = "".join(f'"{url.username}" "{unquote(url.password or "")}"\n' for url in urls)
        (folder / "users").write_text(users, encoding="utf-8")
        values = {"host": urls[0].hostname, "port": urls[0].port, "own_port": port, "folder": folder, "mode": mode}
        (folder / "pgbouncer.ini").write_text(CONFIGURATION.format(**values), encoding="utf-8")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(root / "usr/sbin/pgbouncer"), str(folder / "pgbouncer.ini")],
                stdout=log,
                stderr=log,
                env={"LD_LIBRARY_PATH": packages.library_path(root)},
                user="nobody" if os.geteuid() == 0 else None,  # it refuses to run as root
            )
        try:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not postgres_answers(through(services, "ish_ops", port)):
                assert time.monotonic() < deadline, (folder / "log").read_text(encoding="utf-8")
                assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
                time.sleep(0.05)
            yield port
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder)


def through(services: Session, role: str, port: int) -> str:
    """A role's address by way of PgBouncer."""
    url = urlsplit(services.postgres_url(role))
    return url._replace(netloc=f"{url.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()


@pytest.fixture(scope="module", params=["transaction", "statement"])
def sharing(services: Session, request: pytest.FixtureRequest) -> Iterator[int]:
    """PgBouncer in a mode in which sessions are shared."""
    with pgbouncer(services, request.param) as port:
        yield port


@pytest.fixture(scope="module")
def keeping(services: Session) -> Iterator[int]:
    """PgBouncer in session mode."""
    with pgbouncer(services, "session") as port:
        yield port


def refused_in_one_line(said: str, port: int) -> None:
    [line] = said.splitlines()
    assert line.startswith(f"ish: PostgreSQL at 127.0.0.1:{port} as ish_")
    assert "set pool_mode = session in PgBouncer" in line


@pytest.mark.parametrize(
    ("role", "program"),
    [
        ("worker", ("workers", "relay")),
        ("worker", ("workers", "ai")),
        ("worker", ("workers", "android")),
        ("outbox", ("workers", "outbox")),
        ("gateway", ("gateway",)),
    ],
)
def test_a_process_ends_with_one_line_where_sessions_are_shared(
    services: Session, sharing: int, role: str, program: tuple[str, ...]
) -> None:
    variables = {**services.environment(role), "ISH_GATEWAY_PORT": str(free_port())}
    del variables["ISH_POSTGRES_URL_FILE"]
    variables["ISH_POSTGRES_URL"] = through(services, f"ish_{role}", sharing)

    ended = subprocess.run(
        [sys.executable, "-m", *program],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), **variables},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )

    assert ended.returncode == 1
    refused_in_one_line(ended.stderr, sharing)


def test_a_command_ends_with_one_line_where_sessions_are_shared(services: Session, sharing: int) -> None:
    ended = CliRunner().invoke(app, ["keys", "list"], env={"ISH_POSTGRES_URL": through(services, "ish_ops", sharing)})

    assert ended.exit_code == 1
    refused_in_one_line(ended.stderr, sharing)


async def test_a_pool_that_was_made_while_it_was_away_says_the_same(services: Session, sharing: int) -> None:
    pool = await open_pool(through(services, "ish_worker", sharing), size=3, name="test")
    try:
        with pytest.raises(UnsuitablePooler, match="set pool_mode = session"):
            async with pool.acquire():
                pass
    finally:
        pool.terminate()


async def test_in_session_mode_every_connection_has_its_settings_and_keeps_its_locks(
    services: Session, keeping: int
) -> None:
    url = through(services, "ish_worker", keeping)

    await check_pooler(url)
    pool = await open_pool(url, size=3, name="test")
    async with pool, pool.acquire() as one, pool.acquire() as other:
        found = {name: await one.fetchval("select current_setting($1)", name) for name in SERVER_SETTINGS}
        held = await one.fetchval("select pg_try_advisory_lock(77)")
        refused = await other.fetchval("select pg_try_advisory_lock(77)")

    assert (found["plan_cache_mode"], found["enable_hashjoin"]) == ("force_generic_plan", "off")
    assert (held, refused) == (True, False)


async def test_without_a_pooler_settings_arrive_as_well(services: Session) -> None:
    url = services.postgres_url("ish_worker")

    await check_pooler(url)
    pool = await open_pool(url, size=2, name="test direct")
    async with pool, pool.acquire() as one:
        found = {name: await one.fetchval("select current_setting($1)", name) for name in SERVER_SETTINGS}
        name = await one.fetchval("select current_setting('application_name')")

    assert (found["jit"], found["plan_cache_mode"], found["statement_timeout"]) == ("off", "force_generic_plan", "20s")
    assert name == "test direct"


async def test_a_server_that_is_away_is_told_later_by_whoever_needs_it() -> None:
    await check_pooler(f"postgresql://x:y@127.0.0.1:{free_port()}/z")

    with pytest.raises(OSError, match="Connect call failed"):
        await asyncpg.connect(f"postgresql://x:y@127.0.0.1:{free_port()}/z")
