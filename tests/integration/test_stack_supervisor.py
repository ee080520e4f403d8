"""The supervisor with real processes: crashes, hang-ups, ports in use, and an end of its own."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.settings import child_environment
from ops.stack import state
from ops.stack.child import Child, Spec
from ops.stack.errors import StackError
from ops.stack.identity import Identity
from ops.stack.layout import Layout, Ports
from ops.stack.probes import port_is_free
from ops.stack.supervisor import Supervisor

LISTEN = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
STUBBORN = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(600)"


def until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listening(folder: Path, port: int, name: str = "listener") -> Spec:
    return Spec(
        name=name,
        argv=(sys.executable, "-c", LISTEN, str(port)),
        environment=child_environment({}),
        log_file=folder / f"{name}.log",
        ready=lambda: not port_is_free("127.0.0.1", port),
        listens=(("127.0.0.1", port),),
    )


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Iterator[Supervisor]:
    layout = Layout(tmp_path / "state", Ports.at(0))
    layout.create()
    own = Identity.own()
    made = Supervisor(layout, said.append, state.StackRecord(pid=own.pid, started=own.started, phase="starting"))
    yield made
    made.kill()


def test_a_crashed_process_is_started_again(tmp_path: Path, supervisor: Supervisor, said: list[str]) -> None:
    supervisor.spawn([listening(tmp_path, free_port())])
    supervisor.wait_ready()
    before = supervisor.record.children[0]
    assert before.identity is not None

    before.identity.send(signal.SIGKILL)

    def is_back() -> bool:
        supervisor.tick()
        after = supervisor.record.children[0]
        return after.state == "ready" and after.pid not in {None, before.pid}

    until(is_back)
    assert supervisor.record.children[0].restarts == 1
    assert said == ["listener was ended by SIGKILL; starting it again in 0.5 s", "listener is back"]


def test_a_process_that_ends_at_once_is_tried_ever_more_seldom(
    tmp_path: Path, supervisor: Supervisor, said: list[str]
) -> None:
    spec = listening(tmp_path, free_port())
    supervisor.spawn([spec])
    supervisor.wait_ready()
    child = supervisor.record.children[0]
    assert child.identity is not None
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        child.identity.send(signal.SIGKILL)
        until(lambda: not child.alive)
        squatter.bind(spec.listens[0])
        squatter.listen()

        def tried_twice() -> bool:
            supervisor.tick()
            return len(said) >= 3

        until(tried_twice)

    assert [sentence.rsplit(" in ", 1)[1] for sentence in said[:3]] == ["0.5 s", "1 s", "2 s"]


def test_a_port_in_use_is_one_line_naming_port_service_and_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(StackError) as raised:
            Child(listening(tmp_path, port, "redis")).start()

    assert f"port {port}" in str(raised.value)
    assert "redis" in str(raised.value)
    assert "ISH_PORT_OFFSET" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_process_that_fails_to_start_leaves_its_last_words(tmp_path: Path) -> None:
    spec = Spec(
        name="broken",
        argv=(sys.executable, "-c", "raise SystemExit('no such setting')"),
        environment=child_environment({}),
        log_file=tmp_path / "broken.log",
        ready=lambda: False,
    )

    with pytest.raises(StackError, match=r"broken ended with status 1: no such setting"):
        Child(spec).start()


def test_last_words_are_the_reason_not_what_helper_programs_say_at_the_end(tmp_path: Path) -> None:
    said = r"{dist_port_already_used,34273}\n\nCrash dump is being written to: erl_crash.dump...done\n"
    spec = Spec(
        name="rabbitmq",
        argv=(sys.executable, "-c", f"print('{said}memory supervisor port (memsup): Erlang has closed')"),
        environment=child_environment({}),
        log_file=tmp_path / "rabbitmq.log",
        ready=lambda: False,
    )

    with pytest.raises(StackError, match=r"rabbitmq ended with status 0: \{dist_port_already_used,34273\} \(log: "):
        Child(spec).start()


def test_a_process_that_will_not_stop_is_ended_by_force(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    spec = Spec(
        name="stubborn",
        argv=(sys.executable, "-c", STUBBORN, str(mark)),
        environment=child_environment({}),
        log_file=tmp_path / "stubborn.log",
        ready=mark.exists,
        stop_seconds=0.2,
    )
    child = Child(spec)
    child.start()

    child.stop()

    assert not child.running
    assert child.exit_status == -signal.SIGKILL


def test_what_a_process_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "grandchild"
    shell = f"sleep 600 & echo $! > {mark}.new; mv {mark}.new {mark}; wait"
    spec = Spec(
        name="parent",
        argv=("/bin/sh", "-c", shell),
        environment=child_environment({}),
        log_file=tmp_path / "parent.log",
        ready=mark.exists,
    )
    child = Child(spec)
    child.start()
    grandchild = Identity.of(int(mark.read_text()))
    assert grandchild is not None

    child.kill()

    until(lambda: not grandchild.alive)


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    port = free_port()
    program = f"""
import sys, time
from pathlib import Path
from ops.stack.child import Child, Spec
from contracts.settings import child_environment
child = Child(Spec(name="x", argv=(sys.executable, "-c", {LISTEN!r}, "{port}"), environment=child_environment({{}}),
                   log_file=Path({str(tmp_path / "x.log")!r}), ready=lambda: True))
child.start()
print(child.identity.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Identity.of(int(parent.stdout.readline()))
        assert child is not None

        parent.kill()
        parent.wait()

    until(lambda: not child.alive)


def test_leftovers_of_a_dead_supervisor_are_ended(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state", Ports.at(0))
    layout.create()
    child = Child(listening(tmp_path, free_port()))
    child.start()
    assert child.identity is not None
    record = state.ChildRecord(name="listener", state="ready", pid=child.identity.pid, started=child.identity.started)
    state.write(layout, state.StackRecord(pid=1, started="0", phase="ready", children=[record]))

    left = state.end_leftovers(layout)

    assert left == ["listener"]
    assert not child.running
