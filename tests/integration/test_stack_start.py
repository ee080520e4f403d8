"""`ish up --detach`, `status` and `down` as a person uses them, with every process of the product."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.stack.identity import Identity
from ops.stack.layout import Ports
from ops.stack.probes import port_is_free
from ops.stack.session import free_offset

START_SECONDS = 600


class CommandLine:
    """Runs `ish` for one stack of the test."""

    def __init__(self, state_dir: Path, offset: int) -> None:
        self.state_dir = state_dir
        self.ports = Ports.at(offset)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ISH_")}
        self.environment = {**kept, "ISH_STATE_DIR": str(state_dir), "ISH_PORT_OFFSET": str(offset)}

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ops", *words],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
        )

    def run_until_ready(self) -> str:
        """`ish run` in the foreground, ended by Ctrl-C once it is ready; what it printed."""
        output = self.state_dir.with_name("output")
        with output.open("wb") as stdout:
            run = subprocess.Popen(
                [sys.executable, "-m", "ops", "run"],
                env={**self.environment, "COLUMNS": "200"},
                stdout=stdout,
                stderr=subprocess.STDOUT,
            )
        until(lambda: "Try:" in output.read_text() or run.poll() is not None, seconds=START_SECONDS)
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=120) == 0, output.read_text()
        return output.read_text()

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return answer

    def child(self, name: str) -> Identity:
        pid = next(child["pid"] for child in self.status()["children"] if child["name"] == name)
        identity = Identity.of(pid)
        assert identity is not None
        return identity

    def sourced(self) -> dict[str, str]:
        """What `source .ish/env` leaves in a shell."""
        script = f'. "{self.state_dir}/env" && env'
        lines = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={}).stdout
        pairs = (line.partition("=") for line in lines.splitlines())
        return {name: value for name, _, value in pairs if name.startswith("ISH_")}

    def get(self, path: str) -> httpx.Response:
        values = self.sourced()
        url, key = values["ISH_GATEWAY_URL"], values["ISH_API_KEY"]
        return httpx.get(f"{url}{path}", headers={"X-API-Key": key}, timeout=30, trust_env=False)


def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def fresh() -> Iterator[CommandLine]:
    folder = Path(tempfile.mkdtemp(prefix="ish-tests-"))
    folder.chmod(0o711)
    with free_offset() as offset:
        command_line = CommandLine(folder / "state", offset)
        try:
            yield command_line
        finally:
            command_line.run("down")
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def first_run(fresh: CommandLine) -> str:
    return fresh.run_until_ready()


@pytest.fixture(scope="module")
def ish(fresh: CommandLine, first_run: str) -> CommandLine:
    """The same stack, started again in the background."""
    assert "Try:" in first_run
    started = fresh.run("up", "--detach")
    assert started.returncode == 0, started.stdout + started.stderr
    return fresh


def test_the_first_run_shows_a_result_of_each_kind_and_ends_by_ctrl_c(first_run: str) -> None:
    for command in ("relay a message", "ask the model", "screenshot", "device status"):
        assert re.search(rf"^{command} +succeeded ", first_run, re.MULTILINE), first_run
    assert re.search(r"^screenshot +succeeded +image/png", first_run, re.MULTILINE), first_run
    assert "Simulated" in first_run
    assert first_run.rstrip().endswith("stopped")


def test_the_first_run_says_what_is_a_stand_in(first_run: str) -> None:
    assert "AI provider: a stand-in" in first_run
    assert "phone: a stand-in, simulated" in first_run


def test_everything_is_up_once_the_command_returns(ish: CommandLine) -> None:
    status = ish.status()

    assert status["complete"]
    assert {child["name"] for child in status["children"]} >= {
        *("rabbitmq", "postgres", "redis", "adb", "phone"),
        *("gateway", "relay-1", "ai-1", "android-1", "outbox-1"),
    }
    assert ish.get("/ready").status_code == httpx.codes.OK


def test_the_key_in_the_env_file_opens_the_gateway(ish: CommandLine) -> None:
    assert ish.get("/api/commands").status_code == httpx.codes.OK


def test_commands_find_this_stack_whatever_ports_are_meant_and_by_a_sourced_env_file(ish: CommandLine) -> None:
    elsewhere = ish.run("publishers", "list", "--json", ISH_PORT_OFFSET="0")
    sourced = ish.run("topology", "verify", **ish.sourced())

    assert elsewhere.returncode == 0, elsewhere.stderr
    assert [one["name"] for one in json.loads(elsewhere.stdout)] == ["demo"]
    assert sourced.returncode == 0, sourced.stdout + sourced.stderr


def test_secrets_are_readable_by_their_owner_only(ish: CommandLine) -> None:
    files = [ish.state_dir / "env", *(ish.state_dir / "secrets").iterdir()]

    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert (ish.state_dir / "secrets").stat().st_mode & 0o777 == 0o700


def test_no_secret_is_in_a_command_line_or_a_log(ish: CommandLine) -> None:
    secrets = [
        path.read_text().strip()
        for path in (ish.state_dir / "secrets").iterdir()
        if not path.name.startswith(("amqp-url", "postgres-url", "redis-url"))
    ]
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().decode(errors="replace"))
        except OSError:  # it has ended
            continue
    text = "\n".join(lines + [path.read_text(errors="replace") for path in (ish.state_dir / "logs").iterdir()])

    assert [secret[:4] for secret in secrets if secret in text] == []


def test_a_killed_process_is_back_and_counted(ish: CommandLine) -> None:
    ish.child("relay-1").send(signal.SIGKILL)

    def is_back() -> bool:
        status = ish.status()
        relay = next(child for child in status["children"] if child["name"] == "relay-1")
        return bool(status["complete"] and relay["restarts"] == 1)

    until(is_back)


def test_starting_again_with_a_sourced_env_file_finds_the_stack_running(ish: CommandLine) -> None:
    before = ish.status()["pid"]

    again = ish.run("up", "--detach", **ish.sourced())

    assert again.returncode == 0, again.stderr
    assert "already running" in again.stdout
    assert ish.status()["pid"] == before


def test_a_second_stack_on_the_same_ports_names_the_port_and_the_setting(ish: CommandLine, tmp_path: Path) -> None:
    refused = ish.run("up", "--detach", ISH_STATE_DIR=str(tmp_path / "second"))

    assert refused.returncode == 1
    assert "is in use" in refused.stderr
    assert "ISH_PORT_OFFSET" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_secret_of_the_old_system_stops_the_start_in_one_line(ish: CommandLine) -> None:
    refused = ish.run("up", "--detach", ISH_API_KEY="ish-chat-secure-key-2024")

    assert refused.returncode == 2
    assert "ISH_API_KEY" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_nothing_outlives_a_killed_supervisor_and_a_start_brings_all_of_it_back(ish: CommandLine) -> None:
    children = [Identity.of(child["pid"]) for child in ish.status()["children"]]
    supervisor = Identity.of(ish.status()["pid"])
    assert supervisor is not None
    key = ish.sourced()["ISH_API_KEY"]

    supervisor.send(signal.SIGKILL)
    until(lambda: not any(child.alive for child in children if child))
    started = ish.run("up", "--detach")

    assert started.returncode == 0, started.stderr
    assert ish.status()["complete"]
    assert ish.sourced()["ISH_API_KEY"] == key
    assert ish.get("/api/commands").status_code == httpx.codes.OK


def test_down_stops_all_of_it_and_frees_its_ports(ish: CommandLine) -> None:
    stopped = ish.run("down")

    assert stopped.returncode == 0, stopped.stderr
    assert ish.status()["state"] == "stopped"
    for port in (ish.ports.gateway, ish.ports.amqp, ish.ports.postgres, ish.ports.redis, ish.ports.adb, ish.ports.epmd):
        assert port_is_free("127.0.0.1", port), port
