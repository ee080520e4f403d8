"""The stack's files: secrets, the env file, records, logs."""

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops.stack import log_files, state
from ops.stack.errors import StackError
from ops.stack.identity import Identity
from ops.stack.layout import Layout, Ports
from ops.stack.rabbitmq import password_hash
from ops.stack.report import worker_counts
from ops.stack.secrets import secret, write_private


def layout(folder: Path) -> Layout:
    made = Layout(folder / "state", Ports.at(0))
    made.create()
    return made


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    folder = layout(tmp_path).secrets_dir

    first, second, other = secret(folder, "a"), secret(folder, "a"), secret(folder, "b")

    assert first == second != other
    assert len(first) == 43
    assert (mode(folder), mode(folder / "a")) == (0o700, 0o600)


def test_a_secret_printed_by_the_old_system_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "redis", "secure_redis_password_2024\n")

    with pytest.raises(StackError, match="generate a new one") as raised:
        secret(tmp_path, "redis")

    assert "secure_redis_password_2024" not in str(raised.value)


def test_writing_a_private_file_closes_one_that_was_open_to_others(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, "new")

    assert (path.read_text(), mode(path)) == ("new", 0o600)


def test_a_password_hash_can_be_checked_as_rabbitmq_does() -> None:
    decoded = base64.b64decode(password_hash("hunter2"))

    assert decoded[4:] == hashlib.sha256(decoded[:4] + b"hunter2").digest()
    assert password_hash("hunter2") == password_hash("hunter2")


def test_a_pid_that_now_belongs_to_something_else_is_never_signalled() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        remembered = Identity(other.pid, "12345")

        remembered.send(signal.SIGKILL)

        assert not remembered.alive
        assert other.poll() is None
        other.kill()


def test_only_one_process_supervises(tmp_path: Path) -> None:
    place = layout(tmp_path)

    with state.supervision(place) as first, state.supervision(place) as second:
        assert (first, second) == (True, False)
    with state.supervision(place) as later:
        assert later


def test_a_record_of_a_dead_supervisor_is_not_complete(tmp_path: Path) -> None:
    place = layout(tmp_path)
    own = Identity.own()
    state.write(place, state.StackRecord(pid=os.getpid(), started=own.started, phase="ready"))
    alive = state.read(place)
    state.write(place, state.StackRecord(pid=os.getpid(), started="1", phase="ready"))
    dead = state.read(place)

    assert alive is not None
    assert dead is not None
    assert (alive.complete, dead.complete) == (True, False)


def test_a_json_log_line_becomes_readable() -> None:
    line = json.dumps(
        {"event": "command_retried", "level": "warning", "timestamp": "2030-01-02T03:04:05.678Z", "attempt": 2}
    )

    assert log_files.readable(line) == "03:04:05 WARNING command_retried attempt=2"
    assert log_files.readable("Traceback (most recent call last):") == "Traceback (most recent call last):"


def test_following_goes_on_when_a_log_file_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("before\n")
    followed = log_files.Followed("a", path)
    with path.open("a") as log:
        log.write("one\npart")
    first = list(followed.new_lines())
    path.write_text("two\n")

    second = list(followed.new_lines())

    assert (first, second[-1][-3:]) == (["one"], "two")


def test_a_large_log_file_starts_anew_and_its_writer_notices_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "LIMIT_BYTES", 10)
    path = tmp_path / "a.log"
    with path.open("a") as log:
        log.write("x" * 20)
        log.flush()

        log_files.limit(path)
        log.write("after")

    assert (path.read_text(), (tmp_path / "a.log.1").read_text()) == ("after", "x" * 20)


def test_worker_counts_are_read() -> None:
    assert worker_counts("relay=2, ai=0") == {"relay": 2, "ai": 0}
    assert worker_counts("") == {}


@pytest.mark.parametrize("text", ["relay", "relay=x", "relay=65", "fax=1"])
def test_worker_counts_that_make_no_sense_are_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=text.split("=", maxsplit=1)[0]):
        worker_counts(text)
