"""Fixtures of every test: a private set of real services, started once in each process of a test run."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.stack.session import Session, session
from tests.forked import warm_up

# with it a program that forgets to flush what it says works here, and keeps it to itself elsewhere
os.environ.pop("PYTHONUNBUFFERED", None)


@pytest.fixture(scope="session")
def services() -> Iterator[Session]:
    """Real RabbitMQ, PostgreSQL, Redis and adb server on free ports, with roles, tables and queues in place."""
    with own_services() as running:
        yield running


@contextmanager
def own_services(*, offset: int | None = None, rabbitmq_lines: str = "") -> Iterator[Session]:
    """Start services in a folder of their own, and remove both at the end.

    Args:
        offset: See `session`.
        rabbitmq_lines: See `session`.
    """
    warm_up()
    # not pytest's own temporary folder: PostgreSQL runs as another user under root, and may not enter that
    folder = Path(tempfile.mkdtemp(prefix="ish-tests-"))
    folder.chmod(0o711)
    try:
        with session(folder, offset=offset, rabbitmq_lines=rabbitmq_lines) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)
